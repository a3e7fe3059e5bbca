"""Questions of SQuAD v1.1 and v2.0, from the Hub or from the official JSON files, in one form.

Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from ..errors import EvaluationDataError
from .task_data import find_files, load_from_hub

FEATURES = Features(
    {
        "id": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)


@dataclass(frozen=True)
class SquadTask:
    """One version.

    Attributes:
        name: ours.
        dataset: on the Hub.
        version: what the official files' names end with, up to the point.
        unanswerable: whether some questions have no answer.
        sizes: questions in the official splits.
    """

    name: str
    dataset: str
    version: str
    unanswerable: bool
    sizes: dict[str, int]


SQUADS = {
    "squad": SquadTask("squad", "rajpurkar/squad", "v1", False, {"train": 87_599, "validation": 10_570}),
    "squad_v2": SquadTask("squad_v2", "rajpurkar/squad_v2", "v2", True, {"train": 130_319, "validation": 11_873}),
}


def find_squad(name: str) -> SquadTask:
    """One of `SQUADS` by name.

    Raises:
        EvaluationDataError: there is none of that name.
    """
    if name not in SQUADS:
        raise EvaluationDataError(f"`task` is {name!r}; allowed are {', '.join(SQUADS)}.")
    return SQUADS[name]


def load_squad(task: SquadTask, data: Path | None = None, *, train: bool = True) -> dict[str, Dataset]:
    """The questions of a version.

    Args:
        task: see `SQUADS`.
        data: a folder with the official files, `train-v1.1.json`, `dev-v2.0.json`; None: the Hub.
        train: whether to read the training split.

    Returns:
        By split, `train` first: the columns of `FEATURES`. A question without answers has empty lists.

    Raises:
        EvaluationDataError: the data cannot be loaded, or is not what the version has: questions without
            answers in v1.1, answers that are not in their context, ids that come twice, no questions.
    """
    wanted = ("train", "validation") if train else ("validation",)
    ending = f"*-{task.version}.*.json"  # of the official names, and also of train-slice-v1.1.json
    if data is None:
        found = {split: load_from_hub(task.dataset, None, split, FEATURES, f"train{ending}") for split in wanted}
    else:
        files = find_files(task.name, data, wanted, ending)  # all are there before any is read
        found = {split: read_squad(path) for split, path in files.items()}
    for split, questions in found.items():
        _check(task, split, questions)
    return found


def read_squad(path: Path) -> Dataset:
    """One official JSON file.

    Raises:
        EvaluationDataError: it cannot be read, or has another layout.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = list(_questions(content["data"]))
        if not rows:
            raise ValueError("it holds no questions")
        return Dataset.from_list(rows, features=FEATURES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise EvaluationDataError(
            f"`{path}` is no file in SQuAD's layout: {what}. It needs data[].paragraphs[].context and "
            "qas[].{id, question, answers[].{text, answer_start}}."
        ) from error


def _questions(articles: Any) -> Iterator[dict[str, Any]]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = [] if question.get("is_impossible") else question["answers"]
                yield {
                    "id": str(question["id"]),
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    },
                }


def _check(task: SquadTask, split: str, questions: Dataset) -> None:
    where = f"`{split}` of {task.name}"
    seen: set[str] = set()
    for row in questions:
        name, answers = row["id"], row["answers"]
        if name in seen:
            raise EvaluationDataError(f"{where} has the id `{name}` twice. Every question needs one of its own.")
        seen.add(name)
        if not answers["text"] and not task.unanswerable:
            raise EvaluationDataError(
                f"{where} has a question without an answer, `{name}`; such questions are in SQuAD v2.0 alone. "
                "Use squad_v2."
            )
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            if row["context"][start : start + len(text)] != text:
                raise EvaluationDataError(
                    f"{where}: the answer {text!r:.60} of `{name}` is not at character {start} of its context. "
                    "Starts are counted in characters, not in bytes."
                )
