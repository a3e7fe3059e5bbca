"""Recovers the same cut at every fixed learning rate, and at the rate that the pruner finds, and compares them.

    python examples/benchmarks/recovery_rates.py

cuts the small English BERT of this repository once to each of 80, 50 and 35 % of its parameters. From every cut it
trains for 20, 60 and 300 steps at each fixed rate, without the guard, and with `recovery_learning_rate=None`. A
fine-tuned model on its task, by accuracy as well as by loss:

    python examples/benchmarks/recovery_rates.py --model tuned/mrpc/seed-0 --task mrpc --data GLUE

and any encoder by its own outputs, whose loss is the sum of their distances from the dense ones:

    python examples/benchmarks/recovery_rates.py --model ENCODER --objective outputs --text TEXT --eval-text OTHER

Every number is a cell, a file of its own in `--output-dir`; what is there already is not done again. The fixed rates
take 8 times as long as the rate that is found: about an hour on two cores for the default.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from study.cells import read_cell
from study.recovered import recover
from study.tables import markdown
from transformers import PreTrainedModel

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.front.arguments import PruneArguments
from schubert_hf.front.jobs import open_job
from schubert_hf.pruning.phases import with_teacher
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.run.provenance import environment
from schubert_hf.training.evaluate import evaluate
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import option
from schubert_hf.training.step import NonFiniteLossError

DEFAULT = Path(__file__).resolve().parents[1] / "default"
FOUND = "found"  # the name of the rate that the pruner finds, among the fixed ones


@dataclass
class Arguments:
    """Which model, how small, and for how many steps."""

    model: str = option(str(DEFAULT / "model"), "A BERT: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text to train on: a file or folder.")
    eval_text: str = option(str(DEFAULT / "text" / "valid.txt"), "Held-out text.")
    objective: str = option("auto", "The pruner's objective.")
    pairs: bool = option(False, "Read pairs of texts, as a reranker does; see `schubert prune --help`.")
    pair_columns: str | None = option(None, "The columns of `--text` that hold them.")
    task: str | None = option(None, "Train a fine-tuned model on its task instead: a task of GLUE.")
    data: str | None = option(None, "With --task: a folder with the official files. Default: the Hub.")
    cost: str = option("parameters", "Of which the targets are percent: parameters or flops.")
    targets: str = option("80,50,35", "Percent; each is cut from the dense model.")
    steps: str = option("20,60,300", "Steps of the recovery.")
    rates: str = option("1e-5,2e-5,5e-5,1e-4,2e-4,5e-4,1e-3,found", "Learning rates; `found` is the pruner's own.")
    method: str = option("auto", "The pruner's method.")
    precision: str = option("auto", "What recoveries multiply in; see `schubert prune --help`.")
    batch_size: int = option(16, "Examples per step.")
    max_length: int = option(64, "Word pieces per example.")
    eval_examples: int = option(256, "Held-out examples.")
    seed: int = option(0, "Of order, masks and dropout.")
    output_dir: str = option("runs/recovery_rates", "Folder for the cells.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")

    def config(self, target: str, steps: int, rate: str) -> PruningConfig:
        return PruningConfig(
            target=f"{target}%",
            cost=self.cost,
            precision=self.precision,
            method=self.method,
            recovery_steps=steps,
            recovery_learning_rate=None if rate == FOUND else float(rate),
            batch_size=self.batch_size,
            eval_examples=self.eval_examples,
            seed=self.seed,
        )


def main() -> None:
    (arguments,) = parse("Compares learning rates of the recovery.", Arguments)
    with one_line_errors():
        accelerator = make_accelerator()
        use_all_cores(accelerator, arguments.threads)
        bench = Bench(arguments, accelerator)
        for target in arguments.targets.split(","):
            bench.cut(target)
            for steps in map(int, arguments.steps.split(",")):
                for rate in arguments.rates.split(","):
                    bench.cell(target, steps, rate)
        print(bench.table())


class Bench:
    """Cuts a model once for each target, and recovers every cut in several ways."""

    def __init__(self, arguments: Arguments, accelerator: Accelerator) -> None:
        self.arguments, self.accelerator = arguments, accelerator
        self.output = Path(arguments.output_dir)
        self.dense, self.options = open_model(arguments)
        self.metric, self.sign = ("loss", 1.0) if arguments.task is None else ("classification_accuracy", -100.0)
        self.base: SchuBertPruner | None = None
        self.after_cut: dict[str, float] = {}
        self.small: PreTrainedModel | None = None

    def cell(self, target: str, steps: int, rate: str) -> dict[str, Any]:
        """One recovery: its held-out losses after the cut and at the end, the rate and the seconds."""
        name = f"{target}-{steps}-{rate}"
        path = self.output / f"{name}.json"
        if (found := read_cell(path)) is not None:
            return found
        began = time.monotonic()
        model = copy.deepcopy(self._pruned(target))
        seconds = time.monotonic()
        record = self._recover(model, self.arguments.config(target, steps, rate))
        record = {"target": target, "steps": steps, "rate": rate, "cut": self.after_cut, **record}
        record |= {"recovery_seconds": time.monotonic() - seconds, "seconds": time.monotonic() - began}
        write_json(path, {**record, "arguments": asdict(self.arguments), **environment(self.accelerator)})
        losses = f"{self.after_cut[self.metric]:.4f} -> {record['after'].get(self.metric, float('nan')):.4f}"
        print(f"{name}: {losses} ({record['seconds']:.0f} s) {record.get('learning_rate')}", flush=True)
        return record

    def cut(self, target: str) -> None:
        """Forgets the last cut; the next is made as a cell wants it."""
        self.base, self.small = None, None

    def table(self) -> str:
        """A row for every target and number of steps, in Markdown: losses, or with a task percent right."""
        rates = self.arguments.rates.split(",")
        rows = [["kept", "steps", "after the cut", *rates, "rate", "behind the best fixed one"]]
        rows.append([":---", *["---:"] * (len(rows[0]) - 1)])
        for target in self.arguments.targets.split(","):
            for steps in map(int, self.arguments.steps.split(",")):
                cells = {rate: self.cell(target, steps, rate) for rate in rates}
                found = [self._shown(cells[rate]["after"]) for rate in rates]
                best = min((self._lost(cells[rate]["after"]) for rate in rates if rate != FOUND), default=float("nan"))
                own = cells.get(FOUND, {"after": {}})
                chosen = f"{own['learning_rate']:.2g}" if FOUND in cells else ""
                behind = f"{self._lost(own['after']) - best:+.3f}" if FOUND in cells else ""
                cut = self._shown(next(iter(cells.values()))["cut"])
                rows.append([f"{target} %", str(steps), cut, *found, chosen, behind])
        return markdown(rows)

    def _lost(self, losses: dict[str, float]) -> float:
        return self.sign * losses.get(self.metric, float("inf"))

    def _shown(self, losses: dict[str, float]) -> str:
        value = abs(self._lost(losses))
        if self.sign < 0:
            return f"{value:.1f}"
        return f"{value:.3f}" if value > 0.1 else f"{value:.4f}"  # a distance from the dense outputs can be small

    def _pruned(self, target: str) -> PreTrainedModel:
        if self.small is None:
            config = self.arguments.config(target, 0, "1e-5")
            self.base = SchuBertPruner(self.dense, config, accelerator=self.accelerator, **self.options)
            result = self.base.prune()
            self.small, self.after_cut = result.model, result.rounds[0].after_cut
        return self.small

    def _recover(self, model: PreTrainedModel, config: PruningConfig) -> dict[str, Any]:
        base = self.base
        assert base is not None
        config, plans = config.resolve(), base.progress.plans
        taught = with_teacher(base.maker(model), base.dense.eval(), plans, config)
        position = base.phases.position
        try:
            if (rate := config.recovery_learning_rate) is None:
                record = recover(self.accelerator, taught, base.data, config, position=position)
            else:
                loop = TrainingLoop(self.accelerator, taught, model.named_parameters(), config.recovery_loop(rate))
                loop.run(base.data.stream, base.data.collator, offset=position)
                self.accelerator.free_memory()
                record = {"learning_rate": rate}
            return {**record, "after": self._evaluate(model)}
        except NonFiniteLossError as error:
            return {"learning_rate": rate, "after": {}, "error": str(error)}

    def _evaluate(self, model: PreTrainedModel) -> dict[str, float]:
        base = self.base
        assert base is not None
        return evaluate(
            self.accelerator,
            base.maker(model),
            base.data.eval_stream,
            base.data.eval_collator,
            batch_size=self.arguments.batch_size,
            examples=self.arguments.eval_examples,
        )


def open_model(arguments: Arguments) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The dense model, and what `SchuBertPruner` takes beside it."""
    names = ("model", "text", "eval_text", "objective", "pairs", "pair_columns", "task", "data", "max_length")
    given = {name: getattr(arguments, name) for name in names}
    if arguments.task is not None:
        given |= {"text": None, "eval_text": None}
    job = open_job(PruneArguments(**given), arguments.config("50", 0, "1e-5"))
    data = {"train_dataset": job.train, "eval_dataset": job.held_out, "data_collator": job.collator}
    return job.model, {**data, "tokenizer": job.tokenizer, "objective": job.objective}


if __name__ == "__main__":
    main()
