"""From cells to tables: means over seeds, and how far the seeds are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schubert_hf.hub.tables import TITLES

from .rows import ROWS

COLUMNS = {
    "mlm_cut": ("after_cut", "mlm"),
    "mlm": ("after_recovery", "mlm"),
    "nsp_cut": ("after_cut", "nsp"),
    "nsp": ("after_recovery", "nsp"),
    "accuracy": ("after_recovery", "mlm_accuracy"),
}
Cell = Mapping[str, Any]
LEGEND = """
Losses in nats, on held-out text. After ±: half the distance between the best and the worst seed. `scratch` begins with
BERT's initialization. `auto` recovers with the model of the size before as its teacher, the others without a teacher.
"""


def summarize(cells: Iterable[Cell], dense_parameters: int) -> list[dict[str, Any]]:
    """One entry per row and size, best masked-token loss first within a size; what was not reachable last.

    Args:
        cells: of any rows, seeds and sizes.
        dense_parameters: of the model that all were pruned from.

    Returns:
        `row`, `size`, `seeds`, `kept` (fraction of the parameters) and, by name of `COLUMNS`, (mean, half the distance
        between the smallest and the largest) over the seeds that reached the size; or `unreachable`, the reason, and
        `smallest`, the fraction that the row can reach.
    """
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell["row"], cell["size"]), []).append(cell)
    summary = []
    for (row, size), same in found.items():
        reached = [cell for cell in same if "unreachable" not in cell]
        entry: dict[str, Any] = {"row": row, "size": size, "seeds": len(reached or same)}
        if not reached:
            entry["unreachable"] = same[0]["unreachable"]
            smallest = [cell["smallest"] for cell in same if "smallest" in cell]
            if smallest:
                entry["smallest"] = min(smallest) / dense_parameters
        else:
            entry["kept"] = sum(cell["parameters"] for cell in reached) / len(reached) / dense_parameters
            for name, (when, term) in COLUMNS.items():
                values = [cell[when][term] for cell in reached if term in cell[when]]
                if values:
                    entry[name] = (sum(values) / len(values), (max(values) - min(values)) / 2)
        summary.append(entry)
    last = (float("inf"), 0.0)
    return sorted(summary, key=lambda entry: (-entry["size"], entry.get("mlm", last)))


def loss_table(summary: Sequence[Mapping[str, Any]], dense: Mapping[str, float]) -> str:
    """The table of the study in Markdown."""
    heads = ["size", "method", "kept", "masked-token loss after the cut", "after recovery", "NSP loss after the cut"]
    rows = [[*heads, "after recovery", "masked accuracy", "seeds"], ["---:", ":---", *["---:"] * 7]]
    accuracy = f"{dense['mlm_accuracy']:.1%}".replace("%", " %")
    nsp = f"{dense['nsp']:.3f}" if "nsp" in dense else ""
    rows.append(["100 %", "dense, as it is", "100.0 %", "", f"{dense['mlm']:.3f}", "", nsp, accuracy, ""])
    for entry in summary:
        first = [f"{entry['size']} %", entry["row"]]
        if "unreachable" in entry:
            least = f" (smallest {entry['smallest']:.1%})".replace("%", " %") if "smallest" in entry else ""
            rows.append([*first, f"not reachable{least}", *[""] * 6])
            continue
        single = entry["seeds"] == 1
        values = [_mean(entry.get(name), percent=name == "accuracy", single=single) for name in COLUMNS]
        rows.append([*first, f"{entry['kept']:.1%}".replace("%", " %"), *values, str(entry["seeds"])])
    return markdown(rows)


def width_table(cells: Iterable[Cell], seed: int) -> str:
    """The widths that every row found, layer by layer, of one seed."""
    rows = [["size", "method", *TITLES.values()], ["---:", ":---", *[":---"] * len(TITLES)]]
    order = list(ROWS)
    chosen = [cell for cell in cells if cell["seed"] == seed and "shape" in cell and cell["row"] in order]
    for cell in sorted(chosen, key=lambda cell: (-cell["size"], order.index(cell["row"]))):
        if ROWS[cell["row"]].is_cut:
            widths = [_list(cell["shape"][name]) for name in TITLES]
            rows.append([f"{cell['size']} %", cell["row"], *widths])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _list(widths: Sequence[int]) -> str:
    """All widths, or one number where they are the same everywhere."""
    return str(widths[0]) if len(set(widths)) == 1 else " ".join(map(str, widths))


def _mean(value: tuple[float, float] | None, *, percent: bool, single: bool) -> str:
    """With the spread, where there is more than one seed."""
    if value is None:
        return ""
    numbers = [f"{number:.1%}".replace("%", " %") if percent else f"{number:.3f}" for number in value]
    return numbers[0] if single else " ± ".join(numbers)
