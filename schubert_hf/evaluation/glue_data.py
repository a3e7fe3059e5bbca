"""Labelled examples of GLUE, from the Hub or from the official files, in one form."""

from __future__ import annotations

import logging
from pathlib import Path

import datasets
from datasets import Dataset

from ..errors import EvaluationDataError
from .tasks import Split, Task
from .tsv import read_tsv

logger = logging.getLogger(__name__)
LABEL = "label"


def load_task(task: Task, data: Path | None = None, *, train: bool = True) -> dict[str, Dataset]:
    """The splits of a task.

    Args:
        task: see `TASKS`.
        data: a folder in the official layout, `SST-2/train.tsv` and so on, or the task's own folder. None: the Hub.
        train: read the training split, too.

    Returns:
        By the split's name on the Hub, training first: the columns `task.columns` and `label`, an int in the order
        of `task.labels` or a float. Test splits have no labels and are never read.

    Raises:
        EvaluationDataError: the data cannot be had or read, lacks columns, has foreign labels, or a split is empty.
    """
    wanted = task.splits if train else task.validation
    if data is None:
        return {split.name: _from_hub(task, split) for split in wanted}
    folder = task_folder(task, data)
    files = {split.name: find_file(task, split, folder) for split in wanted}  # all are there before any is read
    return {name: read_tsv(task, path) for name, path in files.items() if path is not None}


def task_folder(task: Task, data: Path) -> Path:
    """The folder with the task's official files: below `data`, in any spelling, or `data` itself.

    Raises:
        EvaluationDataError: there is none.
    """
    if not data.is_dir():
        raise EvaluationDataError(f"`{data}` is no folder. Give one with {task.folder}/train.tsv.")
    names = {task.folder.lower(), task.name}
    below = sorted(path for path in data.iterdir() if path.is_dir() and path.name.lower() in names)
    if below:
        return below[0]
    if any(data.glob("*.tsv")):
        return data
    raise EvaluationDataError(
        f"`{data}` has neither a folder {task.folder} nor .tsv files; it has "
        f"{sorted(path.name for path in data.iterdir())}. Give the folder that holds {task.folder}/dev.tsv."
    )


def find_file(task: Task, split: Split, folder: Path) -> Path | None:
    """The one file of a split; None for a further validation split that is not there.

    Raises:
        EvaluationDataError: there is none or more than one.
    """
    files = sorted(folder.glob(f"{split.stem}*.tsv"))
    if len(files) == 1:
        return files[0]
    if len(files) > 1:
        raise EvaluationDataError(
            f"`{folder}` has {[path.name for path in files]} for `{split.name}` of {task.name}; one is needed. "
            "Put the others elsewhere."
        )
    if split in task.validation[1:]:
        logger.warning("%s has no %s*.tsv: %s is not evaluated on %s.", folder, split.stem, task.name, split.name)
        return None
    only_evaluate = " Without it the checkpoint can only be evaluated." if split is task.train else ""
    raise EvaluationDataError(
        f"`{folder}` has no {split.stem}*.tsv for `{split.name}` of {task.name}; it has "
        f"{sorted(path.name for path in folder.glob('*.tsv'))}.{only_evaluate}"
    )


def _from_hub(task: Task, split: Split) -> Dataset:
    try:
        found = datasets.load_dataset(task.dataset, task.name, split=split.name)
    except (OSError, ValueError) as error:
        raise EvaluationDataError(
            f"`{task.dataset}` ({task.name}, {split.name}) cannot be had from the Hub: {str(error).splitlines()[0]} "
            f"Give a folder with the official files with `--data` ({task.folder}/train.tsv and so on)."
        ) from error
    needed = [*task.columns, LABEL]
    if missing := sorted(set(needed) - set(found.column_names)):
        raise EvaluationDataError(
            f"`{task.dataset}` ({task.name}) has the columns {found.column_names}; it lacks {missing}."
        )
    found = found.select_columns(needed)
    foreign = set(found.unique(LABEL)) - set(range(len(task.labels))) if task.labels is not None else set()
    if foreign:  # -1 stands for "not published"
        raise EvaluationDataError(
            f"`{task.dataset}` ({task.name}, {split.name}) has the labels {sorted(foreign)}; allowed are 0 to "
            f"{len(task.labels or ()) - 1}, {', '.join(task.labels or ())}."
        )
    return found
