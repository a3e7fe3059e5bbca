"""One official file of GLUE -> one data set. A line is a row, a tab ends a cell, and quotes are text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from ..errors import EvaluationDataError
from .tasks import Task

Row = tuple[int, list[str]]  # the line's number, from 1, and its cells
UNLABELLED = "-"  # MNLI and SNLI: the annotators did not agree; officially left out
SCORES = (0.0, 5.0)  # of STS-B


def read_tsv(task: Task, path: Path) -> Dataset:
    """The examples of a file.

    Args:
        task: whose layout it has. Columns are found by name, so that there may be others, in any order.
        path: UTF-8, with a byte-order mark or without.

    Returns:
        The columns `task.columns` and `label`.

    Raises:
        EvaluationDataError: with the file's name and the line: no UTF-8, columns missing, a row with too few cells,
            a label outside the set; or no examples.
    """
    rows = _rows(path)
    places = _places(list(task.header) or next(rows, (1, []))[1], task, path)
    texts: dict[str, list[str]] = {name: [] for name in task.columns}
    labels: list[Any] = []
    for number, cells in rows:
        if len(cells) <= max(places.values()):
            if task.torn_rows:
                continue
            raise EvaluationDataError(
                f"`{path}`, line {number}, has {len(cells)} cells; {list(places)} need {max(places.values()) + 1}. "
                "Cells end with a tab, and quotes are text."
            )
        label = cells[places[task.file_label]]
        if label == UNLABELLED and task.labels is not None:
            continue
        labels.append(_label(label, task, f"`{path}`, line {number}"))
        for name, column in zip(task.columns, task.file_columns, strict=True):
            texts[name].append(cells[places[column]])
    if not labels:
        raise EvaluationDataError(f"`{path}` holds no examples. Give a file with at least one labelled row.")
    kind = Value("int64") if task.labels is not None else Value("float32")
    features = Features({**{name: Value("string") for name in task.columns}, "label": kind})
    return Dataset.from_dict({**texts, "label": labels}, features=features)


def _rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip("\r\n"):
                    yield number, line.rstrip("\r\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationDataError(f"`{path}` cannot be read: {error}. Give a UTF-8 text file.") from error


def _places(header: list[str], task: Task, path: Path) -> dict[str, int]:
    needed = [*task.file_columns, task.file_label]
    if missing := [name for name in needed if name not in header]:
        raise EvaluationDataError(f"`{path}` lacks the columns {missing}; it has {header}. Needed are {needed}.")
    return {name: header.index(name) for name in needed}


def _label(text: str, task: Task, where: str) -> int | float:
    if task.file_labels is not None:
        if text not in task.file_labels:
            raise EvaluationDataError(f"{where}: the label is {text!r}; allowed are {', '.join(task.file_labels)}.")
        return task.file_labels.index(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not SCORES[0] <= number <= SCORES[1]:
        raise EvaluationDataError(f"{where}: the score is {text!r}; allowed is a number from 0 to 5.")
    return number
