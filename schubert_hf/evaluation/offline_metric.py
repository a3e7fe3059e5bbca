"""Base of our metrics: `evaluate.Metric`, without a network and without files."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from ..errors import MetricError


class OfflineMetric(evaluate.Metric):
    """Kept in memory, since several processes may compute at the same time.

    Attributes:
        columns: the features of `predictions` and `references`.
    """

    columns: dict[str, Any]

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(self.columns)
        return evaluate.MetricInfo(
            description=str(self.__doc__), citation="", inputs_description=str(features), features=features
        )

    def checked(self, predictions: Any, references: Any) -> tuple[Any, Any]:
        """Both in the form that `columns` names, example by example.

        Raises:
            MetricError: they cannot be compared.
        """
        raise NotImplementedError

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """Of the given ones, or else of what `add` and `add_batch` collected.

        Raises:
            MetricError: there is nothing to compare, or it cannot be compared.
        """
        if predictions is not None or references is not None:
            kwargs["predictions"], kwargs["references"] = self.checked(predictions, references)
        elif not len(self):
            raise MetricError("There are no predictions to compare. Give at least one.")
        result: dict[str, float] = super().compute(**kwargs)
        return result
