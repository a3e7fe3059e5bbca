"""The pictures of a model's page. One file serves light and dark pages: no background, mid-tone colours."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..shape import Shape
from .tables import TITLES, loss_unit

if TYPE_CHECKING:  # tables and pages need no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each has a contrast of about 4 against white and against the near-black of dark pages.
TEXT = "#737b86"
FULL = "#3f83d6"
CUT = "#d9653b"
BASE = (0.5, 0.53, 0.57, 0.4)


class Point(NamedTuple):
    """A model on a backend: what it takes and how good it is."""

    model: str
    backend: str
    milliseconds: float
    quality: float


def draw_widths(shape: Shape, path: Path, base: Shape | None = None) -> None:
    """The silhouette of a network: one panel per dimension, one centred bar per layer from bottom to top; the base
    behind it. Shapes that Khetan & Karnin (2020) call "slanted" or "tall and narrow" look it.

    Embeddings that are projected to the width of the first layer have a bar below it.
    """
    layers = max(len(shape.hidden_sizes), len(base.hidden_sizes) if base else 0)
    figure = _figure(1.2 + 0.23 * layers)
    panels = figure.subplots(1, len(TITLES), sharey=True)
    for axes, (name, title) in zip(panels, TITLES.items(), strict=True):
        widths, behind = getattr(shape, name), getattr(base, name) if base else ()
        if name == "hidden_sizes" and shape.embedding_size is not None:
            widths = (shape.embedding_size, *widths)
            behind = (base.embedding_size or base.hidden_sizes[0], *behind) if base else ()
            _silhouette(axes, widths, behind, first=-1)
        else:
            _silhouette(axes, widths, behind)
        axes.set_title(title, color=TEXT, fontsize=11)
    panels[0].set_ylabel("layer", color=TEXT, fontsize=11)
    embedded = [-1] if shape.embedding_size is not None else []
    panels[0].set_yticks([*embedded, *range(layers)], [*("e" for _ in embedded), *map(str, range(layers))])
    if base:
        handles = [panels[0].patches[0], panels[0].patches[-1]]
        style = {"ncols": 2, "frameon": False, "labelcolor": TEXT, "fontsize": 11}
        figure.legend(handles, ["base", "this model"], loc="outside lower center", **style)
    save(figure, path)


def draw_rounds(run: dict[str, Any], path: Path) -> None:
    """Size against held-out loss: each cut goes right and up, each recovery straight down."""
    first = run["rounds"][0]
    sizes, losses = [first["size_before"]], [first["before"]["loss"]]
    for record in run["rounds"]:
        sizes += [record["size"], record["size"]]
        losses += [record["after_cut"]["loss"], record["after_recovery"]["loss"]]
    scale, unit = (1e6, f"million {run['unit']}") if sizes[0] >= 1e6 else (1.0, run["unit"])
    x = [size / scale for size in sizes]
    figure = _figure(3.2)
    axes = figure.subplots()
    axes.plot(x, losses, color=TEXT, linewidth=1.2, zorder=1)
    axes.scatter(x[:1], losses[:1], color=TEXT, marker="s", s=50, zorder=2, label="before")
    axes.scatter(x[1::2], losses[1::2], color=CUT, marker="v", s=50, zorder=2, label="after the cut")
    if losses[1::2] != losses[2::2]:  # something was trained
        axes.scatter(x[2::2], losses[2::2], color=FULL, s=50, zorder=2, label="after recovery")
    axes.invert_xaxis()
    axes.margins(x=0.08, y=0.15)
    axes.set_xlabel(unit, color=TEXT, fontsize=11)
    axes.set_ylabel(textwrap.fill(f"held-out loss ({loss_unit(first['before'])})", 34), color=TEXT, fontsize=11)
    axes.grid(axis="y", color=TEXT, alpha=0.25, linewidth=0.7)
    axes.legend(frameon=False, labelcolor=TEXT, fontsize=11)
    plain(axes, spines=("left", "bottom"))
    save(figure, path)


def draw_tradeoff(panels: Mapping[str, Sequence[Point]], quality: str, path: Path) -> None:
    """Quality against milliseconds, both axes linear: one panel per workload, one mark per model, a shape per backend.

    Args:
        panels: title -> points.
        quality: what the vertical axis shows.
    """
    figure = _figure(3.9, width=10)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    backends = list(dict.fromkeys(point.backend for points in panels.values() for point in points))
    for axes, (title, points) in zip(grid, panels.items(), strict=True):
        for backend, marker in zip(backends, "os^vDP", strict=False):
            own = [point for point in points if point.backend == backend]
            place = [point.milliseconds for point in own], [point.quality for point in own]
            axes.scatter(*place, color=FULL, marker=marker, s=50, zorder=2, label=backend)
        for point in points:
            where, above = (point.milliseconds, point.quality), {"xytext": (0, 8), "textcoords": "offset points"}
            axes.annotate(point.model, where, color=TEXT, fontsize=9, ha="center", **above)
        axes.set_title(title, color=TEXT, fontsize=12)
        axes.set_xlabel("milliseconds", color=TEXT, fontsize=11)
        axes.set_xlim(left=0)
        axes.margins(x=0.15, y=0.2)
        axes.grid(color=TEXT, alpha=0.25, linewidth=0.7)
        plain(axes, spines=("left", "bottom"))
    grid[0].set_ylabel(textwrap.fill(quality, 34), color=TEXT, fontsize=11)
    if len(backends) > 1:
        handles, names = grid[0].get_legend_handles_labels()
        style = {"frameon": False, "labelcolor": TEXT, "fontsize": 11}
        figure.legend(handles, names, loc="outside lower center", ncols=len(backends), **style)
    save(figure, path)


def _figure(height: float, width: float = 7) -> Figure:
    """Seven inches at most for pages: on a phone a picture is shrunk to 330 pixels, and its letters with it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _silhouette(axes: Axes, widths: tuple[int, ...], base: tuple[int, ...], first: int = 0) -> None:
    for values, color in ((base, BASE), (widths, FULL)):
        if values:
            rows = range(first, first + len(values))
            axes.barh(rows, values, left=[-width / 2 for width in values], height=0.9, color=color)
    reach = max(*widths, *base, 1)
    for layer, width in enumerate(widths, first):
        axes.text(0.54 * reach, layer, f"{width}", va="center", color=TEXT, fontsize=10)
    axes.set_xlim(-0.52 * reach, 0.8 * reach)
    axes.set_xticks([])
    plain(axes, spines=())


def plain(axes: Axes, spines: tuple[str, ...]) -> None:
    axes.tick_params(colors=TEXT, labelsize=10, length=0 if not spines else 3)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in spines)
        spine.set_color(TEXT)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Leave out matplotlib's version, so that the same picture is the same file.
    figure.savefig(path, transparent=True, metadata={"Software": None} if path.suffix == ".png" else None)
