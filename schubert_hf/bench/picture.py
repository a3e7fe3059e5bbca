"""Quality against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..hub.pictures import Point, draw_tradeoff
from .comparing import Comparison
from .errors import BenchError
from .qualities import read_qualities

SUFFIXES = (".png", ".svg", ".pdf")


def check_picture(path: Path, models: Sequence[str]) -> None:
    """Raises `BenchError` where there will be nothing to draw, before anything is timed."""
    if path.suffix not in SUFFIXES:
        raise BenchError(f"`{path}` cannot be drawn. Give a file that ends in {', '.join(SUFFIXES)}.")
    if read_qualities(models) is None:
        raise BenchError(
            "No quality of these models is known, so there is nothing to draw. Give models that were pruned here, "
            "with their pruning.json, or add results with `schubert card FOLDER --results ...`."
        )


def draw(comparison: Comparison, path: Path) -> None:
    """Draws the models whose quality is known; int8 files are left out, since records know float32 alone."""
    if comparison.quality is None:
        raise BenchError("No quality of these models is known, so there is nothing to draw.")
    panels = {}
    for batch_size, seq_len in comparison.workloads:
        panels[f"{batch_size} × {seq_len} tokens"] = [
            Point(one.model, one.backend, one.median, comparison.quality.values[one.model])
            for one in comparison.of((batch_size, seq_len))
            if one.model in comparison.quality.values and not one.backend.endswith("int8")
        ]
    draw_tradeoff(panels, comparison.quality.name, path)
