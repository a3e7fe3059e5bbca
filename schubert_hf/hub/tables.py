"""The tables of a model's page, as lists of rows of text: the template draws them, it computes nothing."""

from __future__ import annotations

from typing import Any

from ..cost import format_size
from ..shape import Shape
from .evaluations import Evaluation
from .inspection import Inspection, Parts
from .plots import TITLES

Row = list[str]

# In this order; a part that costs nothing on both sides is left out.
_PARTS = {
    "embeddings": "embeddings",
    "encoder": "encoder",
    "attention": "&emsp;attention",
    "filters": "&emsp;filters",
    "pooler": "pooler",
    "head": "head",
    "total": "**total**",
}
TERMS = {
    "mlm": "masked words",
    "nsp": "next sentence",
    "teacher": "teacher",
    "classification": "label",
    "regression": "score",
    "start": "answer's start",
    "end": "answer's end",
}
RIGHT = {
    "mlm": "masked words right",
    "classification": "labels right",
    "start": "starts right",
    "end": "ends right",
}


def size_table(inspection: Inspection, now: str = "this model") -> tuple[Row, list[Row]]:
    """Header and rows: parameters and FLOPs by part; base (where it is known), this model, what is kept."""
    header = ["part", "parameters", "FLOPs"]
    if inspection.base is not None:
        header = ["part", "parameters: base", now, "kept", "FLOPs: base", now, "kept"]
    costs = (
        (inspection.parameters, inspection.base_parameters),
        (inspection.flops, inspection.base_flops),
    )
    rows = []
    for part, label in _PARTS.items():
        cells = [cell for mine, base in costs for cell in _size_cells(part, mine, base)]
        if any(cells):
            rows.append([label, *(f"**{cell}**" if part == "total" else cell for cell in cells)])
    return header, rows


def _size_cells(part: str, now: Parts, before: Parts | None) -> Row:
    value = getattr(now, part)
    if before is None:
        return [format_size(value) if value else ""]
    base = getattr(before, part)
    return [format_size(base), format_size(value), f"{value / base:.1%}"] if base else [""] * 3


def width_rows(shape: Shape, base: Shape | None) -> list[Row]:
    """The widths, layer by layer, bold where they are not the base's; where the base is ragged both are told."""
    first = [] if base is None or _ragged(base) else [["base", *(str(getattr(base, name)[0]) for name in TITLES)]]
    rows = []
    for layer in range(len(shape.hidden_sizes)):
        cells = []
        for name in TITLES:
            now = getattr(shape, name)[layer]
            was = now if base is None or _other_depth(base, shape) else getattr(base, name)[layer]
            both = f"{was} → **{now}**" if base is not None and _ragged(base) else f"**{now}**"
            cells.append(str(now) if now == was else both)
        rows.append([str(layer), *cells])
    return first + rows


def round_rows(run: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and rows: sizes, and each term of the held-out loss before, after the cut, after recovery."""
    terms = [term for term in run["rounds"][0]["before"] if not term.endswith("_accuracy") and term != "loss"]
    right = [term for term in RIGHT if f"{term}_accuracy" in run["rounds"][0]["before"]]
    header = ["round", run["unit"], *(f"{TERMS.get(term, term)} loss" for term in terms)]
    header += [RIGHT[term] for term in right]
    first = run["rounds"][0]
    rows = [["before", format_size(first["size_before"]), *(f"{first['before'][term]:.3f}" for term in terms)]]
    rows[0] += [f"{first['before'][f'{term}_accuracy']:.1%}" for term in right]
    for record in run["rounds"]:
        cut, after = record["after_cut"], record["after_recovery"]
        row = [str(record["number"]), format_size(record["size"])]
        row += [f"{cut[term]:.3f} → **{after[term]:.3f}**" for term in terms]
        row += [f"{cut[f'{term}_accuracy']:.1%} → **{after[f'{term}_accuracy']:.1%}**" for term in right]
        rows.append(row)
    return header, rows


def latency_rows(latency: dict[str, Any]) -> list[Row]:
    """Median and middle half of the times by model, and how many times faster than the base."""
    names = {"base": "base", "model": "this model"}
    milliseconds = latency["milliseconds"]
    rows = []
    for name, (low, median, high) in milliseconds.items():
        row = [names[name], f"{median:.2f} ms", f"{low:.2f} to {high:.2f} ms"]
        if "base" in milliseconds:
            row.append("1" if name == "base" else f"**{milliseconds['base'][1] / median:.2f}**")
        rows.append(row)
    return rows


def evaluation_rows(evaluations: tuple[Evaluation, ...]) -> list[Row]:
    rows = []
    for result in evaluations:
        base = "" if result.base_value is None else f"{result.base_value:.4g}"
        name = (
            f"[{result.dataset}](https://huggingface.co/datasets/{result.dataset})" if result.hub else result.dataset
        )
        spread = "" if result.std is None else f" ± {result.std:.2g}"
        value = f"**{result.value:.4g}**{spread}"
        rows.append([f"{name} {result.task}", result.split or "", result.metric, base, value, result.notes or ""])
    return rows


def setting_rows(config: dict[str, Any]) -> list[Row]:
    """Every setting of a run, in the order of `PruningConfig`."""
    return [[f"`{name}`", _setting(value)] for name, value in config.items()]


def seconds_by_phase(run: dict[str, Any]) -> dict[str, float]:
    phases: dict[str, float] = {}
    for record in run["rounds"]:
        for phase, seconds in record["seconds"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    return phases


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items())
    return "none" if value is None else str(value)


def _ragged(shape: Shape) -> bool:
    return any(len(set(getattr(shape, name))) > 1 for name in TITLES)


def _other_depth(base: Shape, shape: Shape) -> bool:
    return len(base.hidden_sizes) != len(shape.hidden_sizes)
