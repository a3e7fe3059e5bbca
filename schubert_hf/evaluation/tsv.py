"""One official file of GLUE -> one data set. A line is a row, a tab ends a cell, and quotes are text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from ..errors import EvaluationDataError
from .tasks import Task

Line = tuple[int, list[str]]  # the line's number, from 1, and its cells
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
    header = list(task.header) or next(rows, (1, []))[1]
    needed = [*task.file_columns, task.file_label]
    if missing := [name for name in needed if name not in header]:
        raise EvaluationDataError(f"`{path}` lacks the columns {missing}; it has {header}. Needed are {needed}.")
    places = [header.index(name) for name in needed]
    allowed = task.file_labels
    columns: dict[str, list[Any]] = {name: [] for name in (*task.columns, "label")}
    for number, cells in rows:
        if len(cells) <= max(places):
            if task.torn_rows:
                continue
            raise EvaluationDataError(
                f"`{path}`, line {number}, has {len(cells)} cells; {needed} need {max(places) + 1}. "
                "Cells end with a tab, and quotes are text."
            )
        *texts, label = (cells[place] for place in places)
        if label != UNLABELLED or allowed is None:
            row = (*texts, _label(label, allowed, f"`{path}`, line {number}"))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    if not columns["label"]:
        raise EvaluationDataError(f"`{path}` holds no examples. Give a file with at least one labelled row.")
    kinds = dict.fromkeys(task.columns, Value("string")) | {"label": Value("float32" if allowed is None else "int64")}
    return Dataset.from_dict(columns, features=Features(kinds))


def _rows(path: Path) -> Iterator[Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip("\r\n"):
                    yield number, line.rstrip("\r\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationDataError(f"`{path}` cannot be read: {error}. Give a UTF-8 text file.") from error


def _label(text: str, allowed: tuple[str, ...] | None, where: str) -> int | float:
    if allowed is not None:
        if text not in allowed:
            raise EvaluationDataError(f"{where}: the label is {text!r}; allowed are {', '.join(allowed)}.")
        return allowed.index(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not SCORES[0] <= number <= SCORES[1]:
        raise EvaluationDataError(f"{where}: the score is {text!r}; allowed is a number from 0 to 5.")
    return number
