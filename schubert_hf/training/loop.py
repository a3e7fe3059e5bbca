"""The training loop on Accelerate: an objective, a list of parameters, a stream of examples, a number of steps.

It knows nothing of pruning. A step is a function of the weights, the optimizer's state, the seed and the step's number:
the examples come from the stream by position and the dropout from a seed per step, so a run continues from a checkpoint
as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler

from .objective import Batch, Objective
from .stream import Collator, ExampleStream, MaskingCollator, PlainCollator, mix_seed


@dataclass(frozen=True)
class LoopConfig:
    """Settings of one training phase.

    Attributes:
        steps: optimizer steps.
        batch_size: examples per step, over all processes.
        micro_batch_size: examples per process and forward pass; None: no accumulation.
        learning_rate: the peak.
        schedule: a name that `transformers.get_scheduler` knows.
        warmup_steps: steps of linear warm-up, part of `steps`.
        weight_decay: on matrices only, not on biases and LayerNorm.
        max_grad_norm: clipping; 0 for none.
        seed: decides dropout.
        workers: processes that prepare batches; 0 prepares them in the main process.
    """

    steps: int
    batch_size: int = 32
    micro_batch_size: int | None = None
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True)
class StepResult:
    """One finished step: `losses` are means over the step's global batch, one per term; `accuracies` likewise."""

    step: int
    losses: dict[str, float]
    accuracies: dict[str, float]
    penalty: float
    grad_norm: float
    learning_rate: float

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient became NaN or infinite; the weights are those before the step."""


class TrainingLoop:
    """One training phase: owns the optimizer and its schedule, and steps through a stream.

    Args:
        accelerator: decides devices, processes and precision.
        objective: holds the model; every parameter of it that is not in `parameters` must have `requires_grad=False`.
        parameters: (name, parameter) pairs to train.
        config: see `LoopConfig`.
        penalty: added to the loss once per step, e.g. an L1 norm of `parameters`.

    Raises:
        ValueError: `batch_size` cannot be shared out evenly among the processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        parameters: Iterable[tuple[str, nn.Parameter]],
        config: LoopConfig,
        *,
        penalty: Callable[[], Tensor] | None = None,
    ):
        if config.batch_size % accelerator.num_processes:
            raise ValueError(
                f"`batch_size` is {config.batch_size} examples per step over {accelerator.num_processes} processes; "
                "give a multiple of the number of processes."
            )
        self.accelerator = accelerator
        self.config = config
        self.penalty = penalty
        self.step = 0
        self.names, self.parameters = map(list, zip(*parameters, strict=True))
        optimizer = torch.optim.AdamW(
            _parameter_groups(self.names, self.parameters, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, config.adam_beta2),
        )
        self.schedule = get_scheduler(
            config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=max(1, config.steps)
        )
        self.terms = objective.terms
        self.count = objective.count
        # The schedule and the loader stay unprepared: a step is one step of the schedule however many processes there
        # are, and the loader already reads this process's share alone.
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)

    def run(
        self,
        stream: ExampleStream,
        collator: Collator,
        *,
        offset: int = 0,
        stop: int | None = None,
        on_step: Callable[[StepResult], None] | None = None,
        description: str = "training",
    ) -> list[StepResult]:
        """Trains up to step `stop` (all of them by default).

        Args:
            offset: the stream position at which step 0 of this phase reads.
            on_step: called after each step on every process; may raise to stop.

        Returns:
            The results of the steps of this call.

        Raises:
            NonFiniteLossError: see there.
        """
        stop = self.config.steps if stop is None else min(stop, self.config.steps)
        results: list[StepResult] = []
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=description,
            unit="step",
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )
        with bar:
            for batches in self._steps(stream, collator, offset, stop):
                results.append(self._train_step(batches))
                bar.set_postfix({name: f"{value:.3f}" for name, value in results[-1].losses.items()}, refresh=False)
                bar.update()
                if on_step is not None:
                    on_step(results[-1])
        return results

    def state_tensors(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by parameter name, `<parameter>.<kind>`; empty before the first step."""
        state = self.optimizer.state
        return {
            f"{name}.{kind}": torch.as_tensor(value)
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for kind, value in state.get(parameter, {}).items()
        }

    def load_state(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Continues at `step` with the moments of `state_tensors`.

        Raises:
            ValueError: the tensors are not those of these parameters (`torch` itself would not look).
        """
        known = dict(zip(self.names, self.parameters, strict=True))
        for key, value in tensors.items():
            name, kind = key.rsplit(".", 1)
            if name not in known or (value.ndim > 0 and value.shape != known[name].shape):
                expected = tuple(known[name].shape) if name in known else "no such parameter"
                raise ValueError(f"The optimizer state `{key}` has shape {tuple(value.shape)}; expected {expected}.")
            # A step count lives on the CPU, where AdamW keeps it.
            self.optimizer.state[known[name]][kind] = value.to(known[name].device) if value.ndim else value
        self.step = step
        for _ in range(step - self.schedule.last_epoch):
            self.schedule.step()

    def _steps(self, stream: ExampleStream, collator: Collator, offset: int, stop: int) -> Iterator[list[Batch]]:
        share = self.config.batch_size // self.accelerator.num_processes
        size = min(self.config.micro_batch_size or share, share)
        per_step = math.ceil(share / size)
        positions: list[list[int]] = []
        for step in range(self.step, stop):
            first = offset + step * self.config.batch_size + self.accelerator.process_index * share
            positions += [list(range(first + i, first + min(i + size, share))) for i in range(0, share, size)]
        loader: DataLoader[dict[str, Any]] = DataLoader(
            stream,
            batch_sampler=positions,
            collate_fn=collator if isinstance(collator, MaskingCollator) else PlainCollator(collator),
            num_workers=self.config.workers,
        )
        batches = iter(loader)
        for _ in range(self.step, stop):
            yield [next(batches) for _ in range(per_step)]

    def _train_step(self, batches: list[Batch]) -> StepResult:
        accelerator, world = self.accelerator, self.accelerator.num_processes
        set_seed(mix_seed(self.config.seed, self.step, accelerator.process_index) % 2**32)
        self.objective.train()
        counts = self._count(batches)
        sums: dict[str, Tensor] = {}
        penalty = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            # Gradients are averaged over processes, once, with the last micro-batch: hence the factor `world`.
            with contextlib.nullcontext() if last else accelerator.no_sync(self.objective):
                terms = self.objective(send_to_device(batch, accelerator.device))
                loss = sum((terms[name] / counts[name] for name in self.terms), torch.zeros((), device=accelerator.device))
                loss = loss * world
                if last and self.penalty is not None:
                    penalty = self.penalty()
                    loss = loss + penalty
                # `backward` divides by the accumulation of the user's accelerate config; here the counts have done that.
                accelerator.backward(loss * accelerator.gradient_accumulation_steps)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
        norm = self._grad_norm()
        result = self._result(sums, counts, float(penalty.detach()), norm)
        if not math.isfinite(result.loss + norm) and accelerator.scaler is None:
            self.optimizer.zero_grad()
            raise NonFiniteLossError(
                f"Step {self.step}: loss {result.loss}, gradient norm {norm}. The weights are those before this step. "
                f"Lower `learning_rate` (now {self.config.learning_rate:g}) or look at the data."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.step += 1
        return result

    def _count(self, batches: list[Batch]) -> dict[str, float]:
        local = [self.count(batch) for batch in batches]
        totals = torch.tensor([[float(count[name]) for name in self.terms] for count in local]).sum(0)
        totals = self.accelerator.reduce(totals.to(self.accelerator.device), reduction="sum")
        return {name: max(1.0, float(total)) for name, total in zip(self.terms, totals, strict=True)}

    def _grad_norm(self) -> float:
        limit = self.config.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
        return float(norm) if norm is not None else math.nan

    def _result(self, sums: dict[str, Tensor], counts: dict[str, float], penalty: float, norm: float) -> StepResult:
        names = list(sums)
        totals = self.accelerator.reduce(torch.stack([sums[name] for name in names]), reduction="sum")
        means = {
            name: float(total) / counts[name.removesuffix("_correct")] for name, total in zip(names, totals, strict=True)
        }
        return StepResult(
            step=self.step,
            losses={name: means[name] for name in self.terms},
            accuracies={name: means[f"{name}_correct"] for name in self.terms if f"{name}_correct" in means},
            penalty=penalty,
            grad_norm=norm,
            learning_rate=self.schedule.get_last_lr()[0],
        )


def evaluate(
    accelerator: Accelerator,
    objective: Objective,
    stream: ExampleStream,
    collator: Collator,
    *,
    batch_size: int,
    examples: int | None = None,
    description: str = "evaluating",
) -> dict[str, float]:
    """Mean losses and accuracies over the first `examples` of a stream; shared out among the processes.

    The stream should not be shuffled: then every call sees the same examples with the same masks.

    Returns:
        `{"mlm": loss, "mlm_accuracy": fraction, "nsp": ..., "nsp_accuracy": ..., "loss": sum of the losses}`.
    """
    total = min(examples or len(stream.examples), len(stream.examples))
    share = list(range(total))[accelerator.process_index :: accelerator.num_processes]
    loader: DataLoader[dict[str, Any]] = DataLoader(
        stream,
        batch_sampler=[share[i : i + batch_size] for i in range(0, len(share), batch_size)],
        collate_fn=collator if isinstance(collator, MaskingCollator) else PlainCollator(collator),
    )
    sums: dict[str, float] = {f"{name}{kind}": 0.0 for name in objective.terms for kind in ("", "_correct", "_count")}
    was_training = objective.training
    objective.eval()
    with torch.no_grad(), accelerator.autocast():
        for batch in tqdm(loader, desc=description, leave=False, disable=not accelerator.is_main_process):
            for name, count in objective.count(batch).items():
                sums[f"{name}_count"] += count
            for name, value in objective(send_to_device(batch, accelerator.device)).items():
                sums[name] += float(value)
    objective.train(was_training)
    reduced = accelerator.reduce(torch.tensor(list(sums.values()), device=accelerator.device), reduction="sum").tolist()
    sums = dict(zip(sums, reduced, strict=True))
    metrics = {name: sums[name] / max(1.0, sums[f"{name}_count"]) for name in objective.terms}
    metrics["loss"] = sum(metrics.values())
    for name in objective.terms:
        metrics[f"{name}_accuracy"] = sums[f"{name}_correct"] / max(1.0, sums[f"{name}_count"])
    return metrics


def _parameter_groups(names: list[str], parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    decayed = [parameter.ndim > 1 and "LayerNorm" not in name for name, parameter in zip(names, parameters, strict=True)]
    groups = [
        {"params": [p for p, decay in zip(parameters, decayed, strict=True) if decay], "weight_decay": weight_decay},
        {"params": [p for p, decay in zip(parameters, decayed, strict=True) if not decay], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
