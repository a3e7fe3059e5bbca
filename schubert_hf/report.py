"""What runs did, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .cost import format_size
from .evaluation.results import Results
from .hub.inspection import SEQUENCE, Inspection
from .hub.plots import loss_unit
from .hub.tables import RIGHT, TERMS
from .pruning.plan import kept_layers
from .pruning.result import PruningResult
from .shape import Shape

COLUMNS = {
    "hidden_sizes": "hidden h",
    "filter_sizes": "filters f",
    "head_counts": "heads a",
    "key_query_sizes": "key/query k",
    "value_sizes": "value v",
}


def widths_table(before: Shape, after: Shape, kept: Sequence[int] | None = None) -> Table:
    """The widths of every layer; where one changed, both.

    Args:
        before, after: shapes.
        kept: which layers of `before` those of `after` are; None: they are as many.
    """
    layers = range(len(after.hidden_sizes)) if kept is None else kept
    table = Table(title="Widths, layer by layer")
    table.add_column("layer", justify="right")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for layer, source in enumerate(layers):
        cells = [_change(getattr(before, name)[source], getattr(after, name)[layer]) for name in COLUMNS]
        table.add_row(_change(source, layer), *cells)
    return table


def rounds_table(result: PruningResult) -> Table:
    """Sizes and held-out losses, a line per round; the loss is the sum of the terms that the model is trained on."""
    right = [term for term in RIGHT if f"{term}_accuracy" in result.rounds[0].before]
    unit = loss_unit(result.rounds[0].before)
    table = Table(title=f"Rounds ({result.unit}; held-out loss in {unit})")
    for heading in ("round", "size", "kept", "loss before", "after the cut", "after recovery"):
        table.add_column(heading, justify="right")
    for term in right:
        table.add_column(RIGHT[term], justify="right")
    for record in result.rounds:
        table.add_row(
            str(record.number),
            format_size(record.size),
            f"{record.size / result.source_size:.1%}",
            *(f"{losses['loss']:.3f}" for losses in (record.before, record.after_cut, record.after_recovery)),
            *(f"{record.after_recovery[f'{term}_accuracy']:.1%}" for term in right),
        )
    return table


def print_report(result: PruningResult, console: Console | None = None) -> None:
    """Widths, rounds, and a sentence that sums them up."""
    console = console or Console()
    console.print(widths_table(result.source, result.rounds[-1].shape, kept_layers(result.plans)))
    console.print(rounds_table(result))
    before, after = result.rounds[0].before, result.rounds[-1].after_recovery
    losses = ", ".join(f"{term} {before[term]:.3f} -> {after[term]:.3f}" for term in TERMS if term in before)
    console.print(
        f"{format_size(result.source_size)} -> {format_size(result.size)} {result.unit} ({result.kept:.1%} kept). "
        f"Held-out loss: {losses}."
    )


def print_results(results: Results, console: Console | None = None) -> None:
    """Metrics by task and split: the mean over the seeds, the standard deviation, and what must stand beside them."""
    console = console or Console()
    table = Table(title=f"{results.model['name']} ({format_size(results.model['parameters'])} parameters)")
    for heading in ("task", "split", "metric", "value", "seeds", "examples"):
        table.add_column(heading, justify="left" if heading in ("task", "split", "metric") else "right")
    for result in results.results:
        for name in result.metrics:
            spread = "" if (std := result.std(name)) is None else f" ± {std:.4g}"
            value = f"{result.mean(name):.4g}{spread}"
            seeds = ", ".join(map(str, result.seeds)) or "-"
            table.add_row(result.task, result.split, name, value, seeds, f"{result.examples:,}")
    console.print(table)
    for note in dict.fromkeys(result.notes for result in results.results if result.notes):
        console.print(note, highlight=False)
    if results.average is not None:
        console.print(f"The paper's average over its six tasks: {results.average:.1f}")


def print_inspection(inspection: Inspection, console: Console | None = None) -> None:
    """Widths, and parameters and FLOPs by part, beside the base's where it is known."""
    console = console or Console()
    shape, base = inspection.shape, inspection.base
    same_depth = base is not None and len(base.hidden_sizes) == len(shape.hidden_sizes)
    console.print(widths_table(base if base is not None and same_depth else shape, shape))
    console.print(parts_table(inspection))
    if (before := inspection.base_parameters) is not None:
        kept = inspection.parameters.total / before.total
        name = f" against {inspection.base_name}" if inspection.base_name else ""
        console.print(
            f"Removed{name}: {1 - kept:.1%} of the parameters; "
            f"narrower in {', '.join(inspection.pruned_dimensions) or 'nothing'}."
        )


def parts_table(inspection: Inspection) -> Table:
    """Parameters, and FLOPs of one sequence, by part."""
    table = Table(title=f"{inspection.architecture}: size by part (FLOPs: {SEQUENCE} tokens, without the head)")
    table.add_column("part")
    costs = {
        "parameters": (inspection.parameters, inspection.base_parameters),
        "FLOPs": (inspection.flops, inspection.base_flops),
    }
    known = inspection.base is not None
    for title in costs:
        for heading in (title, "base", "kept") if known else (title,):
            table.add_column(heading, justify="right")
    for part in inspection.parameters.to_json():
        if not getattr(inspection.parameters, part) and not getattr(inspection.base_parameters, part, 0):
            continue
        cells = []
        for now, before in costs.values():
            value, base = getattr(now, part), getattr(before, part, 0)
            cells += [format_size(value)] if value else ["-"]
            if known:
                cells += [format_size(base), f"{value / base:.1%}"] if base else ["-", "-"]
        table.add_row(part, *cells, style="bold" if part == "total" else None)
    return table


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} -> [bold]{after}[/bold]"
