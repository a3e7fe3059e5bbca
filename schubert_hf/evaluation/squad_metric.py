"""The official metrics of SQuAD v1.1 and v2.0 as `evaluate.Metric` subclasses, in per cent, without a network.

Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822), as in their official evaluation scripts: answers
are compared in lower case, without punctuation, articles and extra white space; the best of several references counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError
from .offline_metric import OfflineMetric

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)
TEXT = datasets.Value("string")
Item = Mapping[str, Any]


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, words one space apart."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 if both are the same after normalisation, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(reference))


def f1_score(prediction: str, reference: str) -> float:
    """The harmonic mean of precision and recall over the words; if one has no words, whether both have none."""
    said, true = normalize_answer(prediction).split(), normalize_answer(reference).split()
    if not said or not true:
        return float(said == true)
    return 2 * (Counter(said) & Counter(true)).total() / (len(said) + len(true))


class Squad(OfflineMetric):
    """`exact_match` and `f1` of SQuAD v1.1; predictions and references are matched by `id`."""

    columns = {
        "predictions": {"id": TEXT, "prediction_text": TEXT},
        "references": {
            "id": TEXT,
            "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(datasets.Value("int32"))},
        },
    }

    def checked(self, predictions: Any, references: Any) -> tuple[list[Item], list[Item]]:
        """Both in the order of the references.

        Raises:
            MetricError: there are no questions, ids differ or are not unique, or a column is missing.
        """
        said = _by_id("predictions", "prediction_text", predictions or [])
        true = _by_id("references", "answers", references or [])
        if not true:
            raise MetricError("There are no references to compare with. Give at least one.")
        if said.keys() != true.keys():
            stray = sorted(said.keys() ^ true.keys())
            raise MetricError(
                f"{len(stray)} questions have either no prediction or no reference, e.g. `{stray[0]}`. "
                "Give one prediction for each reference."
            )
        return [said[name] for name in true], list(true.values())

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        exact, f1, _ = _scores(predictions, references)
        return {"f1": 100 * float(f1.mean()), "exact_match": 100 * float(exact.mean())}


class SquadV2(Squad):
    """SQuAD v2.0: `exact` and `f1` of all, of answerable and unanswerable questions, and at the best threshold.

    A question without answers is answered right by the empty text. Where `no_answer_probability`, by default 0, is
    above `no_answer_threshold`, the empty text stands for the prediction. `best_exact` and `best_f1` are what the
    threshold that is best on these very questions gives: an upper bound, chosen with the labels in sight.
    """

    columns = {
        **Squad.columns,
        "predictions": {**Squad.columns["predictions"], "no_answer_probability": datasets.Value("float32")},
    }

    def checked(self, predictions: Any, references: Any) -> tuple[list[Item], list[Item]]:
        said, true = super().checked(predictions, references)
        return [{"no_answer_probability": 0.0, **row} for row in said], true

    def _compute(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, float]:
        no_answer = np.array([row["no_answer_probability"] for row in predictions])
        exact, f1, answerable = _scores(predictions, references)
        refused = no_answer > no_answer_threshold
        applied = {"exact": np.where(refused, ~answerable, exact), "f1": np.where(refused, ~answerable, f1)}
        found: dict[str, float] = {"f1": 0.0}  # stands first, since models are chosen by it
        for prefix, chosen in (("", answerable | True), ("HasAns_", answerable), ("NoAns_", ~answerable)):
            if chosen.any():
                found |= {f"{prefix}{name}": 100 * float(values[chosen].mean()) for name, values in applied.items()}
                found[f"{prefix}total"] = float(chosen.sum())
        for name, values in (("exact", exact), ("f1", f1)):
            best, threshold = best_threshold(values, answerable, no_answer)
            found |= {f"best_{name}": 100 * best, f"best_{name}_thresh": threshold}
        return found


def _by_id(side: str, needed: str, rows: Sequence[Item]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for row in rows:
        if not isinstance(row, Mapping) or not {"id", needed} <= row.keys():
            raise MetricError(f"`{side}` need `id` and `{needed}`; there is one that is {row!r:.80}.")
        if row["id"] in found:
            raise MetricError(f"`{side}` hold the id `{row['id']}` twice. Give every question once.")
        found[row["id"]] = row
    return found


def _scores(predictions: Sequence[Item], references: Sequence[Item]) -> tuple[NDArray[Any], ...]:
    """Both metrics as fractions, and whether there is an answer; shape (questions,) each."""
    scores = []
    for said, true in zip(predictions, references, strict=True):
        # The official scripts leave out references that normalise to nothing; without any the right answer is "".
        texts = [text for text in true["answers"]["text"] if normalize_answer(text)]
        answer = said["prediction_text"]
        scores.append(
            (*(max(metric(answer, text) for text in texts or [""]) for metric in (exact_match, f1_score)), bool(texts))
        )
    exact, f1, answerable = np.array(scores, dtype=np.float64).T
    return exact, f1, answerable.astype(bool)


def best_threshold(values: NDArray[Any], answerable: NDArray[Any], no_answer: NDArray[Any]) -> tuple[float, float]:
    """The threshold on `no_answer` above which no answer is best given, and the mean that it gives.

    Args:
        values: of every question, if it is answered; shape (questions,).
        answerable: whether it has an answer.
        no_answer: larger where no answer is likelier: probability or score.

    Returns:
        (mean of the metric, threshold); as in the official script, thresholds are 0 and the numbers of `no_answer`.
    """
    order = np.argsort(no_answer, kind="stable")
    # What answering a question changes: one that has no answer is right until some text is given.
    gains = np.where(answerable, values, -(values < 1).astype(np.float64))[order]
    totals = np.cumsum([(~answerable).sum(), *gains])  # of the first 0, 1, ... questions answered
    best = int(totals.argmax())
    return float(totals[best]) / len(values), float([0.0, *no_answer[order]][best])
