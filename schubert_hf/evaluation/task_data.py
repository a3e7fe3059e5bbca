"""Where the splits of a task come from: data sets on the Hub, or official files in a folder."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import datasets
from datasets import Dataset

from ..data.sources import first_line
from ..errors import EvaluationDataError

logger = logging.getLogger(__name__)


def load_from_hub(dataset: str, config: str | None, split: str, columns: Collection[str], files: str) -> Dataset:
    """One split of a data set on the Hub, with `columns` alone.

    Args:
        dataset, config, split: as `datasets.load_dataset` takes them.
        columns: that must be there.
        files: the official files that would do instead, for the message.

    Raises:
        EvaluationDataError: it cannot be loaded, or lacks columns.
    """
    try:
        found = datasets.load_dataset(dataset, config, split=split)
    except (OSError, ValueError) as error:
        raise EvaluationDataError(
            f"`{dataset}` ({config or 'default'}, {split}) cannot be loaded from the Hub: {first_line(error)} "
            f"Give a folder with the official files with `--data` ({files})."
        ) from error
    if missing := sorted(set(columns) - set(found.column_names)):
        raise EvaluationDataError(f"`{dataset}` has the columns {found.column_names}; it lacks {missing}.")
    return found.select_columns(list(columns))


def find_files(
    task: str, folder: Path, splits: Sequence[str], ending: str, *, optional: Collection[str] = ()
) -> dict[str, Path]:
    """The one official file of each split.

    Args:
        task: its name, for the messages.
        folder: where the files are.
        splits: names on the Hub; the files say `dev` for `validation`.
        ending: of the files' names, a pattern such as "*.tsv".
        optional: splits that are left out, with a warning, if they have no file.

    Raises:
        EvaluationDataError: there is no such folder, or none or more than one file of a split.
    """
    if not folder.is_dir():
        raise EvaluationDataError(f"`{folder}` is no folder. Give the one with train{ending} and dev{ending}.")
    found: dict[str, Path] = {}
    for split in splits:
        pattern = split.replace("validation", "dev") + ending
        files = sorted(folder.glob(pattern))
        if len(files) > 1:
            raise EvaluationDataError(
                f"`{folder}` has {[path.name for path in files]} for `{split}` of {task}; one is needed. "
                "Put the others elsewhere."
            )
        if files:
            found[split] = files[0]
        elif split in optional:
            logger.warning("%s has no %s: %s is not evaluated on %s.", folder, pattern, task, split)
        else:
            there = sorted(path.name for path in folder.glob(f"*{Path(ending).suffix}"))
            only_evaluate = " Without it the checkpoint can only be evaluated." if split == "train" else ""
            raise EvaluationDataError(
                f"`{folder}` has no {pattern} for `{split}` of {task}; it has {there}.{only_evaluate}"
            )
    return found
