"""The study's pictures: loss against size, a line per row; widths per layer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from schubert_hf.hub.pictures import TEXT, plain, save
from schubert_hf.hub.tables import TITLES

from .rows import ROWS

MARKERS = "os^vD<>Pp*Xhd8H"


def draw_losses(summary: Sequence[Mapping[str, Any]], dense: Mapping[str, float], when: str, path: Path) -> None:
    """Masked-token loss against what is kept.

    Args:
        summary: of `tables.summarize`.
        dense: losses of the dense model.
        when: a name of `tables.COLUMNS`: "mlm_cut" or "mlm".
        path: of the picture.
    """
    figure = Figure(figsize=(10, 6), dpi=130, layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(ROWS):
        points = [(100 * e["kept"], *e[when]) for e in summary if e["row"] == row and when in e]
        if not points or (when == "mlm_cut" and not ROWS[row].is_cut):
            continue
        x, y, spread = zip(*sorted(points, reverse=True), strict=True)
        color = colormaps["tab20"](number % 20)
        axes.errorbar(
            x,
            y,
            yerr=spread,
            color=color,
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            linewidth=1.3,
            label=row,
        )
    axes.axhline(dense["mlm"], color=TEXT, linewidth=1, linestyle=":", label="dense, as it is")
    axes.invert_xaxis()
    axes.set_xlabel("parameters kept (%)", color=TEXT, fontsize=11)
    words = "right after the cut" if when == "mlm_cut" else "after recovery"
    axes.set_ylabel(f"held-out masked-token loss {words} (nats)", color=TEXT, fontsize=11)
    axes.grid(axis="y", color=TEXT, alpha=0.25, linewidth=0.7)
    figure.legend(loc="outside right upper", frameon=False, labelcolor=TEXT, fontsize=10)
    plain(axes, spines=("left", "bottom"))
    save(figure, path)


def draw_widths(cells: Iterable[Mapping[str, Any]], dense: Mapping[str, Sequence[int]], seed: int, path: Path) -> None:
    """Widths per layer as shares of the dense ones: a line of panels per row, a colour per size."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["seed"] == seed and "shape" in cell and ROWS[cell["row"]].is_cut:
            found.setdefault(cell["row"], []).append(cell)
    rows = [row for row in ROWS if row in found]
    figure = Figure(figsize=(11, 0.6 + 1.15 * len(rows)), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(TITLES), sharex=True, sharey=True, squeeze=False)
    sizes = sorted({cell["size"] for same in found.values() for cell in same}, reverse=True)
    shades = dict(
        zip(
            sizes,
            [colormaps["viridis"](0.15 + 0.7 * i / max(1, len(sizes) - 1)) for i in range(len(sizes))],
            strict=True,
        )
    )
    for line, row in zip(panels, rows, strict=True):
        for axes, (name, title) in zip(line, TITLES.items(), strict=True):
            for cell in sorted(found[row], key=lambda cell: -cell["size"]):
                widths = cell["shape"][name]
                shares = [100 * width / max(dense[name]) for width in widths]
                axes.plot(range(len(shares)), shares, color=shades[cell["size"]], marker=".")
            axes.set_ylim(-5, 108)
            plain(axes, spines=("left", "bottom"))
            if row == rows[0]:
                axes.set_title(title, color=TEXT, fontsize=11)
        line[0].set_ylabel(textwrap.fill(row, 14) + "\n%", color=TEXT, fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("layer", color=TEXT, fontsize=10)
    handles = [Line2D([], [], color=shades[size], marker=".", label=f"{size} %") for size in sizes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(sizes), frameon=False, labelcolor=TEXT)
    save(figure, path)
