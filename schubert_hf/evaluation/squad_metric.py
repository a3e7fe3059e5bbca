"""The official metrics of SQuAD v1.1 and v2.0 as `evaluate.Metric` subclasses, in per cent, without a network.

Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822), as in their official evaluation scripts: answers
are compared in lower case, without punctuation, articles and extra white space; the best of several references counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import datasets
import evaluate

from ..errors import MetricError

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, words one space apart."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where both are the same after normalisation, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(reference))


def f1_score(prediction: str, reference: str) -> float:
    """The harmonic mean of precision and recall over the words; where one has no words, whether both have none."""
    said, true = normalize_answer(prediction).split(), normalize_answer(reference).split()
    if not said or not true:
        return float(said == true)
    common = sum((Counter(said) & Counter(true)).values())
    return 2 * common / (len(said) + len(true))


class Score(NamedTuple):
    """Of one question: both metrics as fractions, and whether it has an answer."""

    exact: float
    f1: float
    answerable: bool


class OfflineMetric(evaluate.Metric):
    """Base of the metrics: kept in memory, since several processes may compute at the same time."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """Of these, or else of what `add` and `add_batch` collected.

        Raises:
            MetricError: there is nothing to compare.
        """
        if predictions is None and references is None:
            if not len(self):
                raise MetricError("There are no predictions to compare. Give at least one.")
        else:
            kwargs |= {"predictions": predictions, "references": references}
        result: dict[str, float] = super().compute(**kwargs)
        return result


class _SquadMetric(OfflineMetric):
    """Base of both; predictions and references are matched by `id`."""

    prediction_features: dict[str, Any] = {}

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation="",
            inputs_description="predictions: id, prediction_text; references: id, answers (text, answer_start).",
            features=datasets.Features(
                {
                    "predictions": {"id": text, "prediction_text": text, **self.prediction_features},
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """See `squad` and `squad_v2`.

        Raises:
            MetricError: there are no questions, ids differ or come twice, or a column is missing.
        """
        if predictions is None and references is None:
            return super().compute(**kwargs)
        said, true = _by_id("predictions", predictions or []), _by_id("references", references or [])
        if not true:
            raise MetricError("There are no references to compare with. Give at least one.")
        if said.keys() != true.keys():
            stray = sorted(said.keys() ^ true.keys())
            raise MetricError(
                f"{len(stray)} questions have either no prediction or no reference, e.g. `{stray[0]}`. "
                "Give one prediction for each reference."
            )
        # In the order of the references: `evaluate` hands both over row by row.
        ordered = [said[name] for name in true]
        return super().compute(predictions=ordered, references=list(true.values()), **kwargs)


def _by_id(side: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    needed = {"predictions": "prediction_text", "references": "answers"}[side]
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if not isinstance(row, Mapping) or not {"id", needed} <= row.keys():
            raise MetricError(f"`{side}` need `id` and `{needed}`; there is one that is {row!r:.80}.")
        if row["id"] in found:
            raise MetricError(f"`{side}` hold the id `{row['id']}` twice. Give every question once.")
        found[row["id"]] = row
    return found


def _scores(predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> list[Score]:
    scores = []
    for said, true in zip(predictions, references, strict=True):
        # The official scripts leave out references that normalise to nothing; without any the right answer is "".
        texts = [text for text in true["answers"]["text"] if normalize_answer(text)]
        answer = said["prediction_text"]
        exact, f1 = (max(metric(answer, text) for text in texts or [""]) for metric in (exact_match, f1_score))
        scores.append(Score(exact, f1, bool(texts)))
    return scores


class Squad(_SquadMetric):
    """`exact_match` and `f1` of SQuAD v1.1."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = _scores(predictions, references)
        return {
            "f1": 100 * fmean(score.f1 for score in scores),
            "exact_match": 100 * fmean(score.exact for score in scores),
        }


class SquadV2(_SquadMetric):
    """SQuAD v2.0: `exact` and `f1` of all, of answerable and unanswerable questions, and at the best threshold.

    A question without answers is answered right by the empty text. Where `no_answer_probability` is above
    `no_answer_threshold`, the empty text stands for the prediction. `best_exact` and `best_f1` are what the threshold
    that is best on these very questions gives: an upper bound, chosen with the labels in sight.
    """

    prediction_features = {"no_answer_probability": datasets.Value("float32")}

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """As of SQuAD v1.1; `no_answer_probability` is 0 where it is not given, `no_answer_threshold` 1."""
        if predictions is not None:
            predictions = [
                {"no_answer_probability": 0.0, **row} if isinstance(row, Mapping) else row for row in predictions
            ]
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, float]:
        probabilities = [row["no_answer_probability"] for row in predictions]
        scores = _scores(predictions, references)
        applied = [
            score
            if probability <= no_answer_threshold
            else Score(float(not score.answerable), float(not score.answerable), score.answerable)
            for score, probability in zip(scores, probabilities, strict=True)
        ]
        found = _means("", applied)
        for prefix, answerable in (("HasAns_", True), ("NoAns_", False)):
            found |= _means(prefix, [score for score in applied if score.answerable == answerable])
        for name, values in (("exact", [s.exact for s in scores]), ("f1", [s.f1 for s in scores])):
            best, threshold = best_threshold(values, [score.answerable for score in scores], probabilities)
            found |= {f"best_{name}": 100 * best, f"best_{name}_thresh": threshold}
        return {name: found[name] for name in ("f1", *(name for name in found if name != "f1"))}


def _means(prefix: str, scores: Sequence[Score]) -> dict[str, float]:
    if not scores:
        return {}
    return {
        f"{prefix}exact": 100 * fmean(score.exact for score in scores),
        f"{prefix}f1": 100 * fmean(score.f1 for score in scores),
        f"{prefix}total": float(len(scores)),
    }


def best_threshold(
    values: Sequence[float], answerable: Sequence[bool], no_answer: Sequence[float]
) -> tuple[float, float]:
    """The threshold on `no_answer` above which no answer is best given, and the mean that it gives.

    Args:
        values: of every question, if it is answered.
        answerable: whether it has an answer.
        no_answer: of every question, larger where no answer is likelier: probability or score.

    Returns:
        (mean of the metric, threshold); as in the official script, thresholds are 0 and the numbers of `no_answer`.
    """
    current = sum(not has for has in answerable)  # nothing is answered
    best, threshold = float(current), 0.0
    total = float(current)
    for number in sorted(range(len(values)), key=lambda index: no_answer[index]):
        if answerable[number]:
            total += values[number]
        elif values[number] < 1:  # it has none, and some text was given
            total -= 1
        if total > best:
            best, threshold = total, no_answer[number]
    return best / len(values), threshold
