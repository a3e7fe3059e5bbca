"""Fine-tunes a BERT on tasks of GLUE, prunes it on each, and compares it with the dense one after as many steps.

    python examples/benchmarks/pruned_on_tasks.py --model all-MiniLM-L6-v2 --data GLUE

For every task and seed: the dense model is fine-tuned; that one is pruned on the task by examples/prune.py, with
itself as the teacher in the recovery; and it is fine-tuned on for as many steps as all recoveries have together. All
three are evaluated by examples/run_glue.py. Every part is a process of its own and writes into `--output-dir`; what is
there already is not done again. About half an hour a seed for all-MiniLM-L6-v2 on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from study.tables import markdown

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.evaluation.results import FILE, Evaluation, Results
from schubert_hf.evaluation.tasks import find_tasks
from schubert_hf.run.provenance import describe_machine
from schubert_hf.training.loop_config import option

EXAMPLES = Path(__file__).resolve().parents[1]
COLUMNS = {"dense": "dense, fine-tuned", "longer": "dense, as many more steps", "pruned": "pruned"}


@dataclass
class Arguments:
    """Which model, which tasks, how long."""

    model: str = option("sentence-transformers/all-MiniLM-L6-v2", "A BERT: a folder or a name on the Hub.")
    data: str | None = option(None, "Folder with GLUE's official files. Default: the Hub.")
    task: str = option("rte,mrpc,sst2", "Tasks, as run_glue.py takes them.")
    seeds: str = option("0", "Seeds, separated by commas.")
    target: str = option("60%", "What remains of the parameters.")
    method: str = option("auto", "The pruner's method.")
    max_train_examples: int = option(6000, "Training examples of a task, at most.")
    max_length: int = option(128, "Word pieces per example.")
    epochs: int = option(3, "Of the fine-tuning before the cut.")
    learning_rate: float = option(1e-4, "Of the fine-tuning, before and after.")
    rounds: int = option(1, "Rounds of the pruner.")
    recovery_steps: int = option(180, "Steps per round.")
    recovery_learning_rate: float | None = option(None, "Of the recovery. Default: the pruner finds it.")
    output_dir: str = option("runs/pruned_on_tasks", "Folder for models and results.")


def main() -> None:
    (arguments,) = parse("Pruning on tasks, against the dense model after as many steps.", Arguments)
    output = Path(arguments.output_dir)
    with one_line_errors():
        tasks = [task.name for task in find_tasks(arguments.task)]
        launch(
            "run_glue.py", output / "dense", output / "dense" / FILE, *tuning(arguments), "--epochs", arguments.epochs
        )
        found: dict[str, dict[str, list[Evaluation]]] = {}
        for task in tasks:
            for seed in arguments.seeds.split(","):
                found_now = one_seed(arguments, task, seed)
                for column, result in found_now.items():
                    found.setdefault(task, {}).setdefault(column, []).append(result)
        results = Results.read(output / "dense")
        machine = describe_machine(results.results[0].run["machine"])
    print(f"{machine}; {results.model['name']}; {arguments.target} kept; seeds {arguments.seeds}\n")
    print(markdown([[*HEADER], [":---", *["---:"] * (len(HEADER) - 1)], *rows(found)]))


HEADER = ("task", "metric", "trained on", "evaluated on", *COLUMNS.values())


def one_seed(arguments: Arguments, task: str, seed: str) -> dict[str, Evaluation]:
    """Prunes one fine-tuned model, trains it on, and evaluates all three."""
    output = Path(arguments.output_dir)
    dense = output / "dense" / task / f"seed-{seed}"
    steps = arguments.rounds * arguments.recovery_steps
    longer, pruned = (output / name / task / f"seed-{seed}" for name in ("longer", "pruned"))
    again = ["--model", dense, "--task", task, "--seeds", seed]
    launch("run_glue.py", longer, longer / FILE, *tuning(arguments), *again, "--steps", steps)
    data = ["--data", arguments.data] if arguments.data else []
    chosen = ["--target", arguments.target, "--method", arguments.method, "--rounds", arguments.rounds]
    trained = ["--recovery-steps", arguments.recovery_steps]
    if arguments.recovery_learning_rate is not None:
        trained += ["--recovery-learning-rate", arguments.recovery_learning_rate]
    trained += ["--max-length", arguments.max_length, "--max-train-examples", arguments.max_train_examples]
    model = ["--model", dense, "--task", task, "--seed", seed, *data]
    launch("prune.py", pruned / "model", pruned / "model" / "config.json", *model, *chosen, *trained)
    again = ["--model", pruned / "model", "--task", task, "--seeds", seed, *data]
    launch(
        "run_glue.py",
        pruned / "evaluation",
        pruned / "evaluation" / FILE,
        *again,
        "--evaluate-only",
        "--max-length",
        arguments.max_length,
    )
    of_seed = Results.read(output / "dense").results
    before = next(result for result in of_seed if result.task == task)
    place = before.seeds.index(int(seed))
    alone = {name: [values[place]] for name, values in before.metrics.items()}
    return {
        "dense": replace(before, metrics=alone, seeds=[int(seed)]),
        "longer": Results.read(longer).results[0],
        "pruned": Results.read(pruned / "evaluation").results[0],
    }


def tuning(arguments: Arguments) -> list[object]:
    """What every fine-tuning is called with; what follows takes precedence."""
    options: list[object] = ["--model", arguments.model, "--task", arguments.task, "--seeds", arguments.seeds]
    options += ["--data", arguments.data] if arguments.data else []
    options += ["--max-train-examples", arguments.max_train_examples, "--max-length", arguments.max_length]
    return [*options, "--learning-rate", arguments.learning_rate]


def launch(script: str, output: Path, done: Path, *options: object) -> None:
    """Runs an example in a process of its own, or goes on with it; not at all where `done` is there."""
    if done.exists():
        return
    command = [sys.executable, str(EXAMPLES / script), *map(str, options), "--output-dir", str(output)]
    print(" ".join([script, *map(str, options)]), file=sys.stderr)
    if subprocess.run(
        [*command, *(["--resume"] if output.exists() else [])], stdout=sys.stderr, check=False
    ).returncode:
        raise SystemExit(f"{script} failed, see above. What was done is kept.")


def rows(found: dict[str, dict[str, list[Evaluation]]]) -> list[list[str]]:
    """A row for every metric of every task: the mean over the seeds, and half the distance between best and worst."""
    table = []
    for task, columns in found.items():
        first = columns["dense"][0]
        for metric in first.metrics:
            cells = [_mean([result.metrics[metric][0] for result in columns[name]]) for name in COLUMNS]
            table.append([task, metric, f"{first.train_examples:,}", f"{first.examples:,}", *cells])
    return table


def _mean(values: list[float]) -> str:
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
