"""What our metrics have in common: they stay in memory, and say clearly when there is nothing to compare."""

from __future__ import annotations

from typing import Any

import evaluate

from ..errors import MetricError


class OfflineMetric(evaluate.Metric):
    """Base of our metrics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # In memory: several processes may compute at one time, and none should leave files.
        super().__init__(*args, **{"keep_in_memory": True, **kwargs})

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """Of these, or without any of what `add` and `add_batch` have collected.

        Raises:
            MetricError: there is nothing to compare.
        """
        if predictions is None and references is None:
            if not len(self):
                raise MetricError("There are no predictions to compare. Give at least one.")
            given = {}
        else:
            given = {"predictions": predictions, "references": references}
        found: dict[str, float] = super().compute(**given, **kwargs)
        return found
