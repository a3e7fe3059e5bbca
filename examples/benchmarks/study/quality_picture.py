"""Quality against milliseconds, one mark per encoder; what was trained is joined to what it was before training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from schubert_hf.hub.pictures import CUT, FULL, TEXT, plain, save

APART = 0.07  # of the axis' height, between the middles of two labels
RIGHT = 0.05  # of its width, from a mark to its label
LINE = {"arrowstyle": "-", "shrinkA": 3, "shrinkB": 5}  # which ends outside the marks, as they may be hollow


class Mark(NamedTuple):
    """An encoder, and how many steps it was trained for after it was made smaller."""

    name: str
    steps: int
    milliseconds: float
    quality: float


def draw_quality(marks: Sequence[Mark], quality: str, path: Path, *, ours: str, dense: str) -> None:
    """Draws encoders of a few kinds; each kind has one label, beside its best encoder.

    Args:
        marks: of all kinds, in any order.
        quality: what the vertical axis shows.
        ours, dense: names of the kinds that have colours of their own.
    """
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    colors, best = {ours: CUT, dense: TEXT}, []
    for name in dict.fromkeys(mark.name for mark in marks):
        kind = sorted((mark for mark in marks if mark.name == name), key=lambda mark: mark.steps)
        color = colors.get(name, FULL)
        for places in pairwise((mark.milliseconds, mark.quality) for mark in kind):
            axes.annotate("", *places, arrowprops={**LINE, "color": color})
        for mark in kind:
            face = "none" if not mark.steps and len(kind) > 1 else color
            axes.scatter(mark.milliseconds, mark.quality, s=45, facecolor=face, edgecolor=color, zorder=2)
        best.append(max(kind, key=lambda mark: mark.quality))
    axes.margins(x=0.08, y=0.1)
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    axes.set_xlim(min(left, 0), right + 0.45 * (right - left))  # room for labels
    width, height = axes.get_xlim()[1] - axes.get_xlim()[0], top - bottom
    for mark, level in zip(best, spread([mark.quality for mark in best], APART * height), strict=True):
        axes.annotate(
            mark.name,
            (mark.milliseconds, mark.quality),
            (mark.milliseconds + RIGHT * width, level),
            color=TEXT,
            fontsize=10,
            va="center",
            arrowprops={**LINE, "color": TEXT, "linewidth": 0.6},
        )
    if len(best) < len(marks):
        steps = max(mark.steps for mark in marks)
        for face, label in (("none", "nothing trained"), (FULL, f"{steps} steps of training")):
            axes.scatter([], [], s=45, facecolor=face, edgecolor=FULL, label=label)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=TEXT, fontsize=10)
    axes.set_xlabel("milliseconds per text", color=TEXT, fontsize=11)
    axes.set_ylabel(quality, color=TEXT, fontsize=10)
    axes.grid(axis="y", color=TEXT, alpha=0.25, linewidth=0.7)
    plain(axes, spines=("left", "bottom"))
    save(figure, path)


def spread(values: Sequence[float], apart: float) -> list[float]:
    """The values in their order of size, moved down until each two neighbours are `apart` at least."""
    places, below = list(values), float("inf")
    for index in sorted(range(len(values)), key=values.__getitem__, reverse=True):
        places[index] = below = min(values[index], below - apart)
    return places
