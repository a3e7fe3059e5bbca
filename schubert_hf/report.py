"""The results of runs, as tables in the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import rich.table
from rich.console import Console

from .bench.comparing import Comparison
from .cost import format_size
from .evaluation.results import Results
from .hub.encoders import figure_table
from .hub.inspection import SEQUENCE, Inspection
from .hub.tables import RIGHT, TERMS, Table, loss_unit, round_table, size_table, vocabulary_table, width_table
from .pruning.plan import kept_after
from .pruning.result import PruningResult
from .run.provenance import describe_machine

WIDTHS = "Widths, layer by layer"


def draw(title: str, table: Table, *, left: int = 1) -> rich.table.Table:
    """A table for the terminal; the first `left` columns are aligned left."""
    drawn = rich.table.Table(title=title)
    for place, heading in enumerate(table.header):
        drawn.add_column(heading, justify="left" if place < left else "right")
    for row in table.rows:
        drawn.add_row(*(re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/bold]", cell.replace("&emsp;", "  ")) for cell in row))
    return drawn


def print_report(result: PruningResult, console: Console | None = None) -> None:
    """Widths, rounds, and a one-sentence summary."""
    console = console or Console()
    before, after = result.rounds[0].before, result.rounds[-1].after_recovery
    console.print(
        draw(WIDTHS, width_table(result.rounds[-1].shape, result.source, kept_after(result.plans, "layers")))
    )
    console.print(draw(f"Rounds (held-out loss in {loss_unit(before)})", round_table(result.to_json())))
    losses = ", ".join(f"{term} {before[term]:.3f} -> {after[term]:.3f}" for term in TERMS if term in before)
    console.print(
        f"{format_size(result.source_size)} -> {format_size(result.size)} {result.unit} ({result.kept:.1%} kept). "
        f"Held-out loss: {losses}."
    )
    if result.package is not None and (table := figure_table(result.package.facts)) is not None:
        console.print(draw("Next to the dense model", table))


def print_vocabulary(facts: Mapping[str, Any], console: Console | None = None) -> None:
    """What a trimmed vocabulary has and what it changes; `facts` as `vocabulary.trimming.Trimmed` has them."""
    console = console or Console()
    (words, left), (before, after) = facts["words"], facts["parameters"]
    covered = "" if facts["coverage"] is None else f", which are {facts['coverage']:.2%} of the text's tokens"
    console.print(f"Vocabulary: {words:,} -> {left:,} words{covered}.", highlight=False)
    console.print(
        f"Parameters: {format_size(before)} -> {format_size(after)} ({after / before:.1%} kept).", highlight=False
    )
    if (table := vocabulary_table(dict(facts))) is not None:
        console.print(draw("What changes", table))


def print_results(results: Results, console: Console | None = None) -> None:
    """Metrics by task and split: mean and standard deviation over the seeds, and the notes that belong to them."""
    console = console or Console()
    rows = []
    for result in results.results:
        for name in result.metrics:
            spread = "" if (std := result.std(name)) is None else f" ± {std:.4g}"
            seeds = ", ".join(map(str, result.seeds)) or "-"
            examples = "" if result.examples is None else f"{result.examples:,}"
            rows.append([result.task, result.split or "", name, f"{result.mean(name):.4g}{spread}", seeds, examples])
    title = f"{results.model['name']} ({format_size(results.model['parameters'])} parameters)"
    console.print(draw(title, Table(["task", "split", "metric", "value", "seeds", "examples"], rows), left=3))
    for note in dict.fromkeys(result.notes for result in results.results if result.notes):
        console.print(note, highlight=False)
    if results.average is not None:
        console.print(f"The paper's average over its six tasks: {results.average:.1f}")


def print_figures(name: str, figures: Mapping[str, Mapping[str, float]], console: Console | None = None) -> None:
    """What `schubert evaluate` measured, by data set."""
    rows = [
        [data, RIGHT.get(figure, figure), f"{value:,}" if isinstance(value, int) else f"{value:.4f}"]
        for data, values in figures.items()
        for figure, value in values.items()
    ]
    (console or Console()).print(draw(name, Table(["data", "figure", "value"], rows), left=2))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """A table for each batch size and length; times are also given as a share of the first row's."""
    console = console or Console()
    header = ["model", "runs on", "ms: median", "quartiles", "of the first", "weights", "peak memory"]
    for workload in comparison.workloads:
        measured, rows = comparison.of(workload), []
        for one in measured:
            low, median, high = one.milliseconds
            times = [f"{median:.2f}", f"{low:.2f} - {high:.2f}", f"{median / measured[0].median:.2f}"]
            peak = "" if one.peak is None else f"{one.peak / 1e6:.0f} MB"
            rows.append([one.model, one.backend, *times, f"{one.weights / 1e6:.1f} MB", peak])
        console.print(draw("Batch of {}, {} tokens each".format(*workload), Table(header, rows), left=2))
    where, runs = describe_machine(comparison.conditions["machine"]), comparison.measurements[0].runs
    packages = ", ".join(f"{name} {number}" for name, number in comparison.conditions["versions"].items())
    what = "Medians of the processor time" if comparison.conditions["processor_time"] else "Medians"
    console.print(f"{what} of {runs} passes in turns on {where}; {packages}.", highlight=False)


def print_inspection(inspection: Inspection, console: Console | None = None) -> None:
    """Widths, and parameters and FLOPs by part, next to the base's where it is known."""
    console = console or Console()
    console.print(draw(WIDTHS, width_table(inspection.shape, inspection.base)))
    what = f"{inspection.architecture} of the family {inspection.config.family}"
    title = f"{what}: size by part (FLOPs: {SEQUENCE} tokens, with a pooler and no head)"
    console.print(draw(title, size_table(inspection)))
    if (dense := inspection.dense) is not None:
        kept, base = inspection.parameters.total / dense.parameters.total, inspection.base_name or "the base"
        removed = f"Removed from {base}: {1 - kept:.1%} of the parameters"
        compared = removed if kept <= 1 else f"Larger than {base}: {kept:.1%} of its parameters"
        console.print(f"{compared}; narrower in {', '.join(inspection.pruned_dimensions) or 'nothing'}.")
