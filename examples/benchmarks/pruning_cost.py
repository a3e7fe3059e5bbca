"""What the phases of pruning cost, as ratios against an ordinary training step of the same model and batch.

    python examples/benchmarks/pruning_cost.py
    python examples/benchmarks/pruning_cost.py --model random-base --batch-size 8 --steps 6

Times steps in turns on one machine, in one run: the ordinary step is a plain PyTorch loop (forward, backward,
clipping, AdamW) on the same loss. Peak memory is that of a process of its own for each phase, less what it had before
the model was made (on Linux); on a GPU it is what torch has allocated. At last a cut from selection to checkpoint.
About two minutes on two cores, with a BERT-base of random weights (`random-base`) about ten.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from study.tables import markdown
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedModel

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.cli import parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.cost import ParameterCost, penalty_weights
from schubert_hf.data.pairs import make_pairs
from schubert_hf.data.stream import ExampleStream, MaskingCollator, for_stream
from schubert_hf.data.text import load_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.latency.timing import quartiles
from schubert_hf.pruning.checks import check_same_weights
from schubert_hf.pruning.config import PruningConfig
from schubert_hf.pruning.criteria import magnitude_importance
from schubert_hf.pruning.gates import GatedObjective, Gates
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.surgery import compact
from schubert_hf.pruning.units import find_groups
from schubert_hf.run.checkpoint import save_checkpoint
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.run.provenance import describe_machine, machine
from schubert_hf.shape import Shape
from schubert_hf.training.distillation import DistillationObjective, Teacher
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import option, parameter_groups
from schubert_hf.training.objective import PretrainingObjective

DEFAULT = Path(__file__).resolve().parents[1] / "default"
ORDINARY, RANDOM_BASE = "ordinary", "random-base"
RATE = 1e-4  # of the recovery: any takes as long
TURN = 3  # steps of one phase before the next has its turn
Steps = Callable[[int], list[float]]  # from a number of steps to the seconds of each


@dataclass
class Arguments:
    """What is trained, and how often."""

    model: str = option(str(DEFAULT / "model"), 'A BERT: a folder, a name on the Hub, or "random-base".')
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text: a file or folder.")
    batch_size: int = option(32, "Examples per step.")
    max_length: int = option(128, "Word pieces per example.")
    steps: int = option(15, "Timed steps of each phase.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")
    only: str | None = option(None, "Run three steps of this phase and print its peak memory in bytes.")


class Bench:
    """One model, one stream of examples, and a step of every phase on them."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments, self.accelerator = arguments, make_accelerator()
        use_all_cores(self.accelerator, arguments.threads)
        known = DEFAULT / "model" if arguments.model == RANDOM_BASE else arguments.model
        tokenizer = AutoTokenizer.from_pretrained(known)
        documents = load_documents(arguments.text)
        few = documents.select(range(min(len(documents), 200)))
        pairs: Dataset = make_pairs(few, tokenizer, max_length=arguments.max_length, seed=0)
        self.stream, self.collator = ExampleStream(pairs, seed=0), MaskingCollator(tokenizer, seed=0)
        self.config = PruningConfig(batch_size=arguments.batch_size, recovery_steps=10_000, alpha_steps=10_000)
        self.before = resident()

    def load(self) -> PreTrainedModel:
        if self.arguments.model == RANDOM_BASE:
            torch.manual_seed(0)
            return SchuBertForPreTraining(SchuBertConfig()).to(self.accelerator.device)
        model = load_for_pretraining(self.arguments.model, dtype=torch.float32)
        return model.to(self.accelerator.device)

    def ordinary(self) -> Steps:
        """Forward, backward, clipping and AdamW over all weights, as any training script has them."""
        objective = PretrainingObjective(self.load()).train()
        named = {name: value for name, value in objective.model.named_parameters() if value.requires_grad}
        config = self.config.recovery_loop(RATE)
        optimizer = torch.optim.AdamW(parameter_groups(named, config.weight_decay), lr=config.learning_rate)
        collate, size = for_stream(self.collator), self.arguments.batch_size
        position = 0

        def step() -> float:
            nonlocal position
            began = time.perf_counter()
            batch = collate([self.stream[n] for n in range(position, position + size)])
            batch = send_to_device(batch, self.accelerator.device)
            position += size
            counts = objective.count(batch)
            with self.accelerator.autocast():
                sums = objective(batch)
            self.accelerator.backward(torch.stack([sums[name] / counts[name] for name in objective.terms]).sum())
            torch.nn.utils.clip_grad_norm_(named.values(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            return time.perf_counter() - began

        return lambda number: [step() for _ in range(number + 1)][1:]

    def alpha(self) -> Steps:
        """Step 3 of Algorithm 1: alphas alone, all weights frozen."""
        model = self.load().requires_grad_(False)
        gates = Gates(model.config, "hfakv").to(self.accelerator.device)
        cost = ParameterCost(model)
        beta = penalty_weights(cost, Shape.of(model.config), gates.groups)
        objective = GatedObjective(PretrainingObjective(model), gates)
        loop = TrainingLoop(
            self.accelerator,
            objective,
            gates.named_parameters(),
            self.config.alpha_loop(),
            penalty=lambda: gates.penalty(beta),
        )
        return self.steps_of(loop)

    def recovery(self) -> Steps:
        """Every weight, by the library's loop."""
        objective = PretrainingObjective(self.load())
        return self.steps_of(
            TrainingLoop(
                self.accelerator, objective, objective.model.named_parameters(), self.config.recovery_loop(RATE)
            )
        )

    def recovery_with_teacher(self) -> Steps:
        """The same with a teacher of the student's own size, its predictions only."""
        return self._taught(hidden_weight=0.0)

    def recovery_with_hidden_states(self) -> Steps:
        """The same, with the teacher's hidden states, too."""
        return self._taught(hidden_weight=1.0)

    def _taught(self, hidden_weight: float) -> Steps:
        teacher = Teacher(self.load().eval(), hidden_weight=hidden_weight)
        objective = DistillationObjective(PretrainingObjective(self.load()), teacher)
        return self.steps_of(
            TrainingLoop(
                self.accelerator, objective, objective.model.named_parameters(), self.config.recovery_loop(RATE)
            )
        )

    def cut(self) -> float:
        """Seconds from a plan to the checkpoint of the smaller model, ready to be trained: 60 % of the parameters."""
        model = self.load()
        cost = ParameterCost(model)
        scores = magnitude_importance(find_groups(model.config, "hfakv"), model.named_parameters())
        plan = select(scores, model.config, cost, 0.6 * cost(Shape.of(model.config)))
        began = time.perf_counter()
        smaller = compact(model, plan)
        check_same_weights(self.accelerator, smaller)
        objective = PretrainingObjective(smaller)
        loop = TrainingLoop(self.accelerator, objective, smaller.named_parameters(), self.config.recovery_loop(RATE))
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(
                Path(folder) / "cut", smaller, state={"plans": [plan.to_json()]}, optimizer=loop.state_tensors()
            )
            return time.perf_counter() - began

    def steps_of(self, loop: TrainingLoop) -> Steps:
        def steps(number: int) -> list[float]:
            ends = [time.perf_counter()]
            # The first one also opens the loader: it is taken and not counted.
            with contextlib.redirect_stderr(io.StringIO()):  # a progress bar per turn says nothing
                loop.run(
                    self.stream,
                    self.collator,
                    stop=loop.step + number + 1,
                    on_step=lambda _: ends.append(time.perf_counter()),
                )
            return [end - begin for begin, end in itertools.pairwise(ends[1:])]

        return steps


PHASES: dict[str, tuple[str, Callable[[Bench], Steps]]] = {
    ORDINARY: ("ordinary training", Bench.ordinary),
    "alpha": ("alphas (all five dimensions)", Bench.alpha),
    "recovery": ("recovery", Bench.recovery),
    "teacher": ("recovery, teacher's predictions", Bench.recovery_with_teacher),
    "hidden": ("recovery, teacher's predictions and hidden states", Bench.recovery_with_hidden_states),
}


def main() -> None:
    (arguments,) = parse("What the phases of pruning cost.", Arguments)
    with one_line_errors():
        bench = Bench(arguments)
    if arguments.only is not None:
        PHASES[arguments.only][1](bench)(3)
        print(resident(peak=True) - bench.before)
        return
    phases = {name: make(bench) for name, (_, make) in PHASES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    for _ in tqdm(range(-(-arguments.steps // TURN)), desc="steps, in turns"):
        for name, steps in phases.items():
            seconds[name] += steps(TURN)
    memory = {name: peak_memory(name) for name in tqdm(phases, desc="memory")}
    print(f"{describe_machine(machine())}; batch of {arguments.batch_size} x {arguments.max_length}\n")
    rows = [["step", "ms", "against ordinary", "peak memory, MiB", "against ordinary"], ["---", *["---:"] * 4]]
    times = {name: quartiles(values)[0] for name, values in seconds.items()}
    for name, (title, _) in PHASES.items():
        ratios = times[name] / times[ORDINARY], memory[name] / memory[ORDINARY]
        rows.append([title, f"{times[name] * 1e3:.0f}", f"{ratios[0]:.2f}"])
        rows[-1] += [f"{memory[name] / 2**20:.0f}", f"{ratios[1]:.2f}"]
    print(markdown(rows))
    del phases
    print(f"\nCompaction, rebuilding and checkpoint: {bench.cut():.1f} s")


def resident(*, peak: bool = False) -> int:
    """Bytes that this process holds, or the most it has held: on the GPU where there is one, else in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    # Not `getrusage`: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:" if peak else "VmRSS:"))
    return int(line.split()[1]) * 1024


def peak_memory(phase: str) -> int:
    """Bytes that three steps of a phase need beyond Python and its libraries, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", phase]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
