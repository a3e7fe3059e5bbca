"""The metrics of GLUE as `evaluate.Metric` subclasses that need no network, and every metric by its name.

`evaluate.load("accuracy")` downloads code from the Hub; these are local. They are computed by scikit-learn and scipy,
and are fractions or correlations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from ..data.sources import first_line
from ..errors import MetricError
from .offline_metric import OfflineMetric
from .squad_metric import Squad, SquadV2


class PairMetric(OfflineMetric):
    """Compares one number with one number, example by example; an undefined correlation, with one side constant, is 0.

    Args:
        name: of the metric, and of its value in the result.
        module, function: the library's function, called with references and predictions.
        kind: "int64" for labels, "float64" for numbers.
        options: of the function.
    """

    def __init__(self, name: str, module: str, function: str, kind: str = "int64", **options: Any) -> None:
        self.metric, self.kind, self.options = name, kind, options
        self.columns = dict.fromkeys(("predictions", "references"), datasets.Value(kind))
        self.function: Callable[..., Any] = getattr(import_module(module), function)
        super().__init__()

    def checked(self, predictions: Any, references: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two arrays of shape (examples,).

        Raises:
            MetricError: there are no numbers, their counts differ, or they are not finite or of the wrong kind.
        """
        said, true = _numbers(predictions, self.kind), _numbers(references, self.kind)
        if len(said) != len(true):
            raise MetricError(
                f"There are {len(said)} predictions and {len(true)} references. "
                "Give one prediction for each reference."
            )
        return said, true

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        constant = min(len(np.unique(predictions)), len(np.unique(references))) == 1
        if constant and self.metric in CORRELATIONS:
            return {self.metric: 0.0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nearly constant numbers, very few of them
            value = self.function(np.asarray(references), np.asarray(predictions), **self.options)
        return {self.metric: float(getattr(value, "statistic", value))}


def _numbers(values: Any, kind: str) -> NDArray[Any]:
    try:
        array = np.asarray(values if values is not None else [])
    except ValueError as error:
        raise MetricError(f"`predictions` and `references` must be lists of numbers: {error}.") from error
    if array.ndim != 1 or not len(array):
        raise MetricError(f"Got numbers of shape {array.shape}; give a list of at least one number.")
    if array.dtype.kind not in "iufb" or not np.isfinite(array.astype(np.float64)).all():
        raise MetricError("`predictions` and `references` must be finite numbers.")
    if kind == "int64" and not (array == array.astype(np.int64)).all():
        raise MetricError("`predictions` and `references` of this metric are labels: whole numbers.")
    return array.astype(kind)


CORRELATIONS = ("matthews_correlation", "pearsonr", "spearmanr")
SKLEARN, SCIPY = "sklearn.metrics", "scipy.stats"
METRICS: dict[str, Callable[[], evaluate.Metric]] = {
    "accuracy": lambda: PairMetric("accuracy", SKLEARN, "accuracy_score"),
    # Of class 1, whatever other classes there are; 0 if neither side has any.
    "f1": lambda: PairMetric("f1", SKLEARN, "f1_score", labels=[1], average="macro", zero_division=0.0),
    "matthews_correlation": lambda: PairMetric("matthews_correlation", SKLEARN, "matthews_corrcoef"),
    "pearsonr": lambda: PairMetric("pearsonr", SCIPY, "pearsonr", "float64"),
    "spearmanr": lambda: PairMetric("spearmanr", SCIPY, "spearmanr", "float64"),
    "squad": Squad,
    "squad_v2": SquadV2,
}


def load_metric(name: str) -> Any:
    """A metric by name: one of `METRICS`, or else what `evaluate.load` finds on the Hub or on disk.

    `evaluate.load` runs downloaded code: only give names that you trust.

    Raises:
        MetricError: there is none of that name, or the Hub cannot be reached.
    """
    if name in METRICS:
        return METRICS[name]()
    try:
        return evaluate.load(name)
    except Exception as error:  # downloaded code may raise anything
        raise MetricError(
            f"`{name}` is not a metric of this package, and `evaluate.load` cannot load it: {first_line(error)} "
            f"Available offline: {', '.join(METRICS)}."
        ) from error
