"""What is compared: a row of the table is a name, a sentence, and the settings of the pruner that make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        name: of the row, on the command line and in the table.
        title: what it is.
        kind: "pruned" goes down from size to size; "scratch" trains the shapes that another row found, from nothing;
            "dense" trains the whole model on; "peer" is cut by another library.
        settings: of `PruningConfig`, beside those that all rows share; of a "peer", its `importance`.
        shapes_of: the row whose shapes a "scratch" row takes.
    """

    name: str
    title: str
    kind: Literal["pruned", "scratch", "dense", "peer"] = "pruned"
    settings: dict[str, Any] = field(default_factory=dict)
    shapes_of: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether there is a cut that the loss can be measured after."""
        return self.kind in ("pruned", "peer")

    @property
    def trains_alphas(self) -> bool:
        return self.kind == "pruned" and self.settings["method"] == "schubert"


def _variant(letters: str, name: str, title: str) -> Row:
    return Row(f"schubert-{name}", f"Algorithm 1, {title}", settings={"method": "schubert", "dimensions": letters})


_ROWS = (
    Row("auto", "the library's default", settings={"method": "auto"}),
    Row("auto-alone", "the same without a teacher", settings={"method": "auto", "teacher_weight": 0.0}),
    Row("dense-trained", "the dense model, trained on for as many steps", kind="dense"),
    _variant("hfakv", "all", "everything but whole layers"),
    _variant("h", "h", "hidden channels alone"),
    _variant("f", "f", "filters alone"),
    _variant("a", "a", "heads alone"),
    _variant("k", "k", "keys and queries alone"),
    _variant("v", "v", "values alone"),
    _variant("l", "l", "whole layers alone"),
    _variant("hfakvl", "all+l", "everything, whole layers included"),
    Row("uniform", "every dimension by the same factor, smallest weights first", settings={"method": "uniform"}),
    Row("magnitude", "smallest weights first, all kinds together", settings={"method": "magnitude"}),
    Row("random", "random units", settings={"method": "random"}),
    Row("layers", "fewer layers (BERT-l), evenly spaced", settings={"method": "layers"}),
    Row("torch-pruning-taylor", "Torch-Pruning, global, first-order Taylor", "peer", {"importance": "taylor"}),
    Row("torch-pruning-magnitude", "Torch-Pruning, global, magnitude", "peer", {"importance": "magnitude"}),
    Row("scratch", "the shapes of schubert-all, trained from nothing", kind="scratch", shapes_of="schubert-all"),
)
ROWS: dict[str, Row] = {row.name: row for row in _ROWS}
