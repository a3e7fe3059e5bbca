"""Compares pruning without any training, to the same cost: ours, Kwon et al. 2022, and K-prune (Park et al. 2024).

    python examples/benchmarks/retraining_free.py

cuts the small English BERT of this repository to 75, 60, 45 and 30 % of its encoder's FLOPs by each method, which sees
the same 512 examples, and gives the held-out masked-LM loss. A fine-tuned model is scored on its development set:

    python examples/benchmarks/retraining_free.py --task sst2 --data GLUE --model tuned/sst2/seed-0

Rows like `auto-fkv` may cut these kinds of units only. How the default does among them, by parameters:

    python examples/benchmarks/retraining_free.py --cost parameters --sizes 80,50,35 --methods auto,auto-hfkv,auto-f

Every cell is a file in `--output-dir`; what is there is not done again. The two others are written from their papers,
in study/kwon.py and study/k_prune.py: they remove heads and filters only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from study.cells import finished
from study.tables import markdown
from study.untrained import METHODS, PEERS, UNITS, Conditions, Subject, Trials, open_fine_tuned, open_text

from schubert_hf.cli import command_line, parse
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import describe_machine, environment, source
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).resolve().parents[1] / "default"
DENSE = "dense"
FREE = ("methods", "sizes", "output_dir", "threads", "model", "text", "eval_text", "data")


@dataclass
class Arguments:
    """What to cut, how far, and what to measure it on."""

    model: str = option(str(DEFAULT / "model"), "A BERT, with --task a fine-tuned one: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text that the methods look at: a file or folder.")
    eval_text: str = option(str(DEFAULT / "text" / "valid.txt"), "Held-out text.")
    task: str | None = option(
        None, "Score a fine-tuned model on its task, instead of text: a task of GLUE or a SQuAD."
    )
    data: str | None = option(None, "With --task: a folder with the official files. Default: the Hub.")
    methods: str = option("auto,kwon,k-prune", f"Rows of the table: {', '.join(METHODS)}.")
    cost: str = option("flops", "What remains is counted in: the encoder's flops, or all parameters.")
    sizes: str = option("75,60,45,30", "Percent of it that remain, each cut from the dense model.")
    examples: int = option(512, "Training examples that a method may look at.")
    batch_size: int = option(32, "Examples per forward pass.")
    eval_examples: int = option(512, "Held-out examples of the masked-LM loss.")
    max_length: int = option(128, "Word pieces per example, and tokens of the pass whose FLOPs are counted.")
    seed: int = option(0, "Seed of the order of the examples and their masks.")
    output_dir: str = option("runs/retraining_free", "Folder for cells and the table.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names() if name not in METHODS]
        if unknown:
            raise PruningConfigError(f"`methods` has {', '.join(unknown)}; allowed is {', '.join(METHODS)}.")
        if not all(part.strip().isdecimal() and 0 < int(part) < 100 for part in self.sizes.split(",")):
            raise PruningConfigError(f"`sizes` is {self.sizes!r}; give percentages below 100, e.g. 75,60,45,30.")
        if self.cost not in UNITS:
            raise PruningConfigError(f"`cost` is {self.cost!r}; allowed is {', '.join(UNITS)}.")
        if self.cost != "flops" and set(self.names()) & set(PEERS):
            raise PruningConfigError(f"{', '.join(PEERS)} know of FLOPs only. Leave them out of `methods`.")

    def names(self) -> list[str]:
        return [name.strip() for name in self.methods.split(",")]

    def percents(self) -> list[int]:
        return [int(part) for part in self.sizes.split(",")]

    def settings(self) -> dict[str, Any]:
        """What decides a cell beside its method and FLOPs; models and data by name and hash."""
        known = {name: value for name, value in asdict(self).items() if name not in FREE}
        used = ("model",) if self.task else ("model", "text", "eval_text")
        return known | {name: source(getattr(self, name)) for name in used}


def main() -> None:
    (arguments,) = parse("Compares pruning without training, to the same cost.", Arguments)
    output = Path(arguments.output_dir)
    with script(arguments.threads) as accelerator:
        if accelerator.num_processes > 1:
            raise PruningConfigError("The methods of the papers run in one process; start one.")
        shared = Conditions(**{one.name: getattr(arguments, one.name) for one in fields(Conditions)})
        trials = Trials(open_subject(arguments), shared, accelerator)
        cells = []
        wanted = [(DENSE, 100), *((name, size) for size in arguments.percents() for name in arguments.names())]
        for method, percent in wanted:
            path = output / "cells" / f"{method}-{percent}.json"
            if (cell := finished(path, arguments.settings())) is None:
                found = trials.measure(trials.dense) if method == DENSE else trials.run(method, percent)
                cell = {"method": method, "percent": percent, **found, "settings": arguments.settings()}
                cell |= {"command": cell_command(arguments, method, percent), **environment(accelerator)}
                write_json(path, cell)
                print(f"{method}, {percent} %: {cell.get('scores', cell.get('unreachable'))}", flush=True)
            cells.append(cell)
            (output / "table.md").write_text(table(cells), encoding="utf-8")
    print((output / "table.md").read_text(encoding="utf-8"))


def open_subject(arguments: Arguments) -> Subject:
    """The model and examples that the command names."""
    if arguments.task is None:
        return open_text(arguments.model, arguments.text, arguments.eval_text, max_length=arguments.max_length)
    data = Path(arguments.data) if arguments.data else None
    return open_fine_tuned(arguments.model, arguments.task, data, max_length=arguments.max_length)


def cell_command(arguments: Arguments, method: str, percent: int) -> str:
    """The command that makes one cell."""
    own = replace(arguments, output_dir=Arguments().output_dir)
    own = own if method == DENSE else replace(own, methods=method, sizes=str(percent))
    return command_line("python examples/benchmarks/retraining_free.py", own)


def table(cells: list[dict[str, Any]]) -> str:
    """The cells in Markdown, a row each, and what they were made by."""
    names = list(cells[0]["scores"])
    rows = [
        [cells[0]["settings"]["cost"], "method", "FLOPs kept", "parameters", *names, "seconds"],
        ["---:", ":---", *["---:"] * 4],
    ]
    rows[1] += ["---:"] * (len(rows[0]) - len(rows[1]))
    for cell in cells:
        first = [f"{cell['percent']} %", cell["method"]]
        if "unreachable" in cell:
            rows.append([*first, "not reachable", *[""] * (len(names) + 2)])
            continue
        kept = f"{100 * cell['flops'] / cells[0]['flops']:.1f} %"
        scores = [f"{cell['scores'][name]:.4f}" for name in names]
        rows.append([*first, kept, f"{cell['parameters']:,}", *scores, str(cell.get("seconds", ""))])
    dense = cells[0]
    made = f"`{dense['command']}`; seed {dense['settings']['seed']}; {describe_machine(dense['machine'])}."
    return f"{markdown(rows)}\n{made}\n"


if __name__ == "__main__":
    main()
