"""Prunes a BERT with every variant and baseline, on the same text and for the same number of steps, and compares them.

    accelerate launch examples/benchmarks/compare_methods.py

takes the small English BERT of this repository down through 80, 60 and 40 % of its parameters, two seeds: about an
hour on two cores. It can be stopped at any moment and goes on where it was. `--quick` shows the same in five minutes,
of one seed and with few steps. One row of the table again:

    accelerate launch examples/benchmarks/compare_methods.py --methods schubert-h --seeds 0

Alphas are training too: a row without them recovers for as many more steps. Each size begins with the model of the
size before. Held-out examples and their masks are the same for all.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from study.cells import Study, read_cell
from study.pictures import draw_losses, draw_widths
from study.plan import Plan
from study.rows import ROWS
from study.tables import LEGEND, loss_table, summarize, width_table
from transformers import AutoTokenizer

from schubert_hf.cli import command_line, parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.data.spans import pretraining_makers
from schubert_hf.data.text import load_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.hub.inspection import read_json
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run.checkpoint import CheckpointError, write_json
from schubert_hf.run.processes import make_accelerator, on_main_process, use_all_cores
from schubert_hf.run.provenance import machine, source, versions
from schubert_hf.shape import Shape
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).resolve().parents[1] / "default"
QUICK = {"seeds": "0", "sizes": "80,40", "alpha_steps": 3, "recovery_steps": 6, "batch_size": 16, "eval_examples": 64}


@dataclass
class Arguments:
    """What to compare, on which text, and for how long."""

    model: str = option(str(DEFAULT / "model"), "A BERT: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text to train on: a file or folder.")
    eval_text: str = option(str(DEFAULT / "text" / "valid.txt"), "Held-out text.")
    methods: str = option(",".join(ROWS), "Rows of the table.")
    seeds: str = option("0,1", "Seeds: of order, masks and dropout, and of random units.")
    sizes: str = option("80,60,40", "Percent of the parameters, from size to size.")
    alpha_steps: int = option(15, "Steps per size that train alphas.")
    recovery_steps: int = option(40, "Steps per size that train the smaller model, beside those of the alphas.")
    batch_size: int = option(32, "Examples per step.")
    multiple_of: str = option("h=8,f=8", "What kept widths are multiples of, as in `PruningConfig`.")
    max_length: int = option(128, "Word pieces per example.")
    eval_examples: int = option(256, "Held-out examples.")
    output_dir: str = option("runs/compare_methods", "Folder for cells, tables and pictures.")
    keep_models: bool = option(False, "Keep every pruned model.")
    quick: bool = option(False, "Five minutes: one seed, two sizes, few steps, in a folder of its own.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")

    def __post_init__(self) -> None:
        if self.quick:
            for name, value in QUICK.items():
                setattr(self, name, value)
            self.output_dir += "-quick"
        unknown = [name for name in self.names() if name not in ROWS]
        if unknown:
            raise PruningConfigError(f"`methods` has {', '.join(unknown)}; allowed is {', '.join(ROWS)}.")

    def names(self) -> list[str]:
        return [name.strip() for name in self.methods.split(",")]

    def plan(self) -> Plan:
        sizes = numbers("sizes", self.sizes)
        if list(sizes) != sorted(set(sizes), reverse=True) or not all(0 < size < 100 for size in sizes):
            raise PruningConfigError(f"`sizes` is {self.sizes!r}; give percentages that fall, e.g. 80,60,40.")
        steps = (self.alpha_steps, self.recovery_steps)
        return Plan(sizes, *steps, self.batch_size, self.eval_examples, self.multiple_of)


def numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.replace("%", "").split(",")]
    if not all(part.isdecimal() for part in parts):
        raise PruningConfigError(f"`{name}` is {text!r}; give whole numbers with commas between them.")
    return tuple(map(int, parts))


def main() -> None:
    (arguments,) = parse("Compares pruning methods.", Arguments)
    with one_line_errors():
        accelerator = make_accelerator()
        use_all_cores(accelerator, arguments.threads)
        plan, seeds = arguments.plan(), numbers("seeds", arguments.seeds)
        output = Path(arguments.output_dir)
        on_main_process(accelerator, lambda: check_settings(output, arguments))
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        make, _ = pretraining_makers(load_for_pretraining(arguments.model))
        with accelerator.main_process_first():
            data = tuple(
                make(load_documents(text), tokenizer, max_length=arguments.max_length, seed=0)
                for text in (arguments.text, arguments.eval_text)
            )
        study = Study(
            plan,
            arguments.model,
            tokenizer,
            (data[0], data[1]),
            output,
            accelerator,
            keep_models=arguments.keep_models,
            command=again(arguments),
        )
        dense = study.dense()
        began, missing = time.monotonic(), study.missing(arguments.names(), seeds)
        for number, (row, seed, stage) in enumerate(missing, start=1):
            if study.cell(row.name, seed, plan.sizes[stage]) is None:  # it may have been made on the way to another
                cell = study.run(row, seed, stage)
                if accelerator.is_main_process:
                    report(cell, number, len(missing), time.monotonic() - began)
                    write_results(study, dense, output)
    if accelerator.is_main_process:
        write_results(study, dense, output)
        print((output / "table.md").read_text(encoding="utf-8"))


def again(arguments: Arguments) -> str:
    """The command without its rows and seeds, which a cell knows, and without the folder."""
    plain = Arguments()
    # `quick` stands for settings that are spelled out here.
    kept = replace(arguments, quick=False, keep_models=False, output_dir=plain.output_dir)
    kept = replace(kept, methods=plain.methods, seeds=plain.seeds)
    return command_line("accelerate launch examples/benchmarks/compare_methods.py", kept)


def check_settings(output: Path, arguments: Arguments) -> None:
    """Raises `CheckpointError` where the folder holds the cells of a study with other settings."""
    free = ("methods", "seeds", "output_dir", "keep_models", "quick", "threads", "model", "text", "eval_text")
    settings = {name: value for name, value in asdict(arguments).items() if name not in free}
    for name in ("model", "text", "eval_text"):
        settings[name] = source(getattr(arguments, name))
    known = read_json(output / "settings.json")
    other = [name for name in settings if known is not None and known.get(name) != settings[name]]
    if known is not None and other:
        changes = "; ".join(f"`{name}` was {known.get(name)!r} and is {settings[name]!r}" for name in other)
        raise CheckpointError(f"`{output}` holds another study: {changes}. Give another `--output-dir`.")
    write_json(output / "settings.json", settings)


def report(cell: dict[str, Any], number: int, total: int, seconds: float) -> None:
    """A line per finished cell."""
    what = f"[{number}/{total}] {cell['row']}, seed {cell['seed']}, {cell['size']} %: "
    if "unreachable" in cell:
        what += f"not reachable: {cell['unreachable']}"
    else:
        what += f"masked-token loss {cell['after_cut']['mlm']:.3f} -> {cell['after_recovery']['mlm']:.3f}"
    left = seconds / number * (total - number)
    print(f"{what} ({seconds / 60:.0f} min, {left / 60:.0f} min to go)", flush=True)


def write_results(study: Study, dense: dict[str, float], output: Path) -> None:
    """Tables and pictures of all cells that are there, whichever call made them."""
    cells = [found for path in sorted((output / "cells").glob("[!.]*.json")) if (found := read_cell(path))]
    shape = asdict(Shape.of(study.config))
    summary = summarize(cells, study.parameters)
    described = {"machine": machine(), "versions": versions(), "parameters": study.parameters}
    write_json(output / "results.json", {**described, "dense": dense, "summary": summary, "cells": cells})
    (output / "table.md").write_text(loss_table(summary, dense) + LEGEND, encoding="utf-8")
    first = min((cell["seed"] for cell in cells), default=0)
    (output / "widths.md").write_text(width_table(cells, first), encoding="utf-8")
    if any("kept" in entry for entry in summary):
        draw_losses(summary, dense, "mlm_cut", output / "loss-after-cut.png")
        draw_losses(summary, dense, "mlm", output / "loss-after-recovery.png")
    if any("shape" in cell and ROWS[cell["row"]].is_cut for cell in cells):
        draw_widths(cells, shape, first, output / "widths.png")


if __name__ == "__main__":
    main()
