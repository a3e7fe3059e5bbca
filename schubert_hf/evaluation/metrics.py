"""The metrics of GLUE as `evaluate.Metric` subclasses that need no network, and every metric by its name.

`evaluate.load("accuracy")` fetches code from the Hub; these are here. Definitions are the official ones: those of
scikit-learn for accuracy, F1 and Matthews, of scipy for Pearson and Spearman. All are fractions or correlations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError
from .offline_metric import OfflineMetric
from .squad_metric import Squad, SquadV2

Numbers = NDArray[np.float64]


class _PairMetric(OfflineMetric):
    """Base of the metrics that compare one number with one number, example by example."""

    kind = "int64"
    about = ""

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value(self.kind)
        return evaluate.MetricInfo(
            description=self.about,
            citation="",
            inputs_description="predictions and references: a list of numbers each, equally long.",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """The metric by its name.

        Raises:
            MetricError: there are none, they are not equally many, or not finite numbers of the right kind.
        """
        if predictions is None and references is None:
            return super().compute(**kwargs)
        pair = {"predictions": _numbers(predictions, self.kind), "references": _numbers(references, self.kind)}
        if len(pair["predictions"]) != len(pair["references"]):
            raise MetricError(
                f"There are {len(pair['predictions'])} predictions and {len(pair['references'])} references. "
                "Give one prediction for each reference."
            )
        return super().compute(**pair, **kwargs)


def _numbers(values: Any, kind: str) -> NDArray[Any]:
    try:
        array = np.asarray(values if values is not None else [])
    except ValueError as error:
        raise MetricError(f"Predictions and references must be lists of numbers: {error}.") from error
    if array.ndim != 1 or not len(array):
        raise MetricError(f"Got numbers of shape {array.shape}; give a list of at least one number.")
    if array.dtype.kind not in "iufb" or not np.isfinite(array.astype(np.float64)).all():
        raise MetricError("Predictions and references must be finite numbers.")
    if kind == "int64" and not (array == array.astype(np.int64)).all():
        raise MetricError("Predictions and references of this metric are labels: whole numbers.")
    return array.astype(np.int64 if kind == "int64" else np.float64)


class Accuracy(_PairMetric):
    about = "The share of predictions that are right."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class F1(_PairMetric):
    about = "2 tp / (2 tp + fp + fn) of the class 1; 0 where nothing is and nothing was called 1."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        said, true = np.asarray(predictions) == 1, np.asarray(references) == 1
        wrong = int((said != true).sum())
        right = int((said & true).sum())
        return {"f1": 2 * right / (2 * right + wrong) if right + wrong else 0.0}


class MatthewsCorrelation(_PairMetric):
    """For any number of classes (Gorodkin 2004); 0 where one side knows one class only."""

    about = "The correlation of predicted and true classes, from -1 to 1 (Matthews 1975)."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        classes = np.unique(np.concatenate([predictions, references]))
        said, true = (np.asarray(side)[:, None] == classes for side in (predictions, references))  # (items, classes)
        return {"matthews_correlation": _correlation(said.astype(np.float64), true.astype(np.float64))}


class Pearson(_PairMetric):
    """Undefined where one side is constant; 0 then, since nothing was predicted, and results are JSON."""

    kind = "float64"
    about = "The linear correlation of predictions and references, from -1 to 1."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {
            "pearsonr": _correlation(*(np.asarray(side, np.float64)[:, None] for side in (predictions, references)))
        }


class Spearman(_PairMetric):
    """Equal numbers share the mean of their ranks; 0 where one side is constant, as for Pearson."""

    kind = "float64"
    about = "The correlation of the ranks of predictions and references, from -1 to 1."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {
            "spearmanr": _correlation(
                *(_ranks(np.asarray(side, np.float64))[:, None] for side in (predictions, references))
            )
        }


def _correlation(one: Numbers, other: Numbers) -> float:
    """Covariance by standard deviations, summed over the columns; inputs of shape (items, columns)."""
    one, other = one - one.mean(0), other - other.mean(0)
    # Scaled first: squares of tiny numbers would vanish.
    one, other = (side / (np.abs(side).max() or 1.0) for side in (one, other))
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float(np.clip((one * other).sum() / scale, -1.0, 1.0)) if scale > 0 else 0.0


def _ranks(values: Numbers) -> Numbers:
    """From 1; equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Numbers = (last - (count - 1) / 2)[place]
    return ranks


METRICS: dict[str, Callable[[], evaluate.Metric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews_correlation": MatthewsCorrelation,
    "pearsonr": Pearson,
    "spearmanr": Spearman,
    "squad": Squad,
    "squad_v2": SquadV2,
}


def load_metric(name: str) -> Any:
    """A metric by name: ours, or else what `evaluate.load` finds on the Hub or on disk.

    The latter runs the code that lies under that name: give names that you trust.

    Raises:
        MetricError: there is none of that name, or the Hub cannot be reached.
    """
    if name in METRICS:
        return METRICS[name]()
    try:
        return evaluate.load(name)
    except Exception as error:  # whatever the fetched code raises as it is loaded
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise MetricError(
            f"There is no metric `{name}` here, and `evaluate.load` does not get it: {reason} "
            f"Without a network there are {', '.join(METRICS)}."
        ) from error
