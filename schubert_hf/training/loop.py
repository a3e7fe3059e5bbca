"""The training loop on Accelerate: an objective, a list of parameters, a stream of examples, a number of steps.

A step is a function of the weights, the optimizer's state, the seed and the step's number: the examples come from the
stream by position, the learning rate from the step and the dropout from a seed per step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.stream import Batch, Collator, Stream, for_stream, mix_seed, pull, workers_for
from ..run.checkpoint import CheckpointError
from ..run.progress import progress_bar
from .loop_config import AUTO, LoopConfig, LoopConfigError, learning_rate_factor, parameter_groups
from .micro_batches import by_length, sparse_gradients
from .objective import Objective
from .precision import bfloat16_on_cpu, has_bfloat16
from .step import NonFiniteLossError, StepResult

VALUE = "value"


class TrainingLoop:
    """One training phase: owns the optimizer, and steps through a stream.

    Args:
        objective: holds the model; every parameter of it that is not in `parameters` must have `requires_grad=False`.
        parameters: (name, parameter) pairs to train.
        penalty: added to the loss once per step, e.g. an L1 norm of `parameters`.

    Raises:
        LoopConfigError: `batch_size` cannot be shared out evenly among the processes, there is nothing to train, or a
            parameter that is not in `parameters` wants a gradient.

    Attributes:
        learning_rate: the peak, the config's unless lowered on the way.
        data_state: this process's place, after the last step, in a stream that is read in order; None for a stream
            that is addressed by number.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        parameters: Iterable[tuple[str, nn.Parameter]],
        config: LoopConfig,
        *,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        trained = dict(parameters)
        _check(accelerator, objective, trained, config)
        self.accelerator = accelerator
        self.config = config
        self.penalty = penalty
        self.step = 0
        self.learning_rate = config.learning_rate
        self.data_state: dict[str, Any] | None = None
        self.names, self.parameters = list(trained), list(trained.values())
        self.terms = objective.terms
        self.count = objective.count
        self._learning_rate_factor = learning_rate_factor(config)
        device = accelerator.device
        self._bfloat16 = config.precision == AUTO and accelerator.mixed_precision == "no" and has_bfloat16(device)
        optimizer = torch.optim.AdamW(
            parameter_groups(trained, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, config.adam_beta2),
            fused=device.type == "cpu" or None,  # a tenth of a step is Adam's there; elsewhere PyTorch chooses
        )
        # The loader stays unprepared: it already reads this process's share alone.
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)

    def run(
        self,
        stream: Stream,
        collator: Collator,
        *,
        offset: int = 0,
        stop: int | None = None,
        on_step: Callable[[StepResult], None] | None = None,
        description: str = "training",
    ) -> list[StepResult]:
        """Trains up to the last step.

        Args:
            offset: the stream position at which step 0 of this phase reads.
            stop: the step before which this call ends.
            on_step: called after each step on every process; may raise to stop.

        Returns:
            The results of all steps of this call; none where `on_step` takes them.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite.
        """
        stop = self.config.steps if stop is None else min(stop, self.config.steps)
        results: list[StepResult] = []
        take, style = on_step or results.append, {"leave": True, "unit": "step", "dynamic_ncols": True}
        total = self.config.steps
        with progress_bar(self.accelerator, None, description, total=total, initial=self.step, **style) as bar:
            for batches in self._steps(stream, collator, offset, stop):
                result = self._train_step(batches)
                bar.set_postfix({name: f"{value:.3f}" for name, value in result.losses.items()}, refresh=False)
                bar.update()
                take(result)
        return results

    def state_tensors(self, *, parameters: bool = False) -> dict[str, Tensor]:
        """Adam's moments and step counts, as `<parameter>.<kind>`; with `parameters` their values, too."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._named():
            kinds = {**self.optimizer.state.get(parameter, {}), **({VALUE: parameter.detach()} if parameters else {})}
            tensors |= {f"{name}.{kind}": torch.as_tensor(value) for kind, value in kinds.items()}
        return tensors

    def load_state(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Continues at `step` with the moments of `state_tensors`.

        Raises:
            CheckpointError: the tensors are not those of these parameters (`torch` itself would not look).
        """
        known = dict(self._named())
        split = {key: key.rpartition(".")[::2] for key in tensors}  # parameter and kind
        for key, value in tensors.items():
            name, _ = split[key]
            if name not in known or (value.ndim > 0 and value.shape != known[name].shape):
                expected = tuple(known[name].shape) if name in known else "no such parameter"
                raise CheckpointError(
                    f"The optimizer state `{key}` has shape {tuple(value.shape)}; expected {expected}. "
                    "The checkpoint belongs to another model."
                )
        self.optimizer.state.clear()
        for key, value in tensors.items():
            name, kind = split[key]
            if kind == VALUE:
                with torch.no_grad():
                    known[name].copy_(value)
                continue
            # A step count lives on the CPU, where AdamW keeps it. Copied, since what was read from a file may begin at
            # any address, and kernels round differently there.
            device = known[name].device if value.ndim else value.device
            self.optimizer.state[known[name]][kind] = value.to(device, copy=True)
        self.step, self.data_state = step, None

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return zip(self.names, self.parameters, strict=True)

    def _steps(self, stream: Stream, collator: Collator, offset: int, stop: int) -> Iterator[list[Batch]]:
        first, rank = self.step, self.accelerator.process_index
        share = self.config.batch_size // self.accelerator.num_processes
        # Accelerate's own setting counts micro-batches, ours their examples.
        size = min(self.config.micro_batch_size or -(-share // self.accelerator.gradient_accumulation_steps), share)

        def positions() -> Iterator[list[int]]:
            for step in range(first, stop):
                start = offset + step * self.config.batch_size + rank * share
                for begin in range(0, share, size):
                    yield list(range(start + begin, start + min(begin + size, share)))

        loader: DataLoader[Any] = DataLoader(
            cast(Any, stream),
            batch_sampler=positions(),
            collate_fn=partial(pull, stream, for_stream(collator)),
            num_workers=workers_for(stream, self.config.workers),
        )
        bfloat16 = self._bfloat16 or self.accelerator.mixed_precision == "bf16"
        batches = iter(loader)
        for step in range(first, stop):
            # Before the batches: a collator of the user's may draw its masks from the global generators.
            set_seed(mix_seed(self.config.seed, step, rank) % 2**32)
            pulled = [next(batches) for _ in range(0, share, size)]
            self.data_state = pulled[-1].state
            yield list(by_length((batch.tensors for batch in pulled), self.accelerator.device, few_widths=bfloat16))

    def _train_step(self, batches: list[Batch]) -> StepResult:
        self.objective.train()
        rate = self.learning_rate * self._learning_rate_factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        counts = self._count(batches)
        alone = self.accelerator.device.type == "cpu" and self.accelerator.num_processes == 1  # else DDP sums them
        with sparse_gradients(self.objective, alone and len(batches) > 1):
            sums, penalty = self._backward(batches, counts)
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm or math.inf))
        result = self._result(sums, counts, penalty, norm, rate)
        # With a gradient scaler an infinite gradient is a matter of course: it skips the step.
        if not math.isfinite(result.loss + penalty) or not (math.isfinite(norm) or self.accelerator.scaler):
            self.optimizer.zero_grad()
            raise NonFiniteLossError(
                f"Step {self.step}: loss {result.loss}, gradient norm {norm}. The weights are those before this step. "
                f"Lower `learning_rate` (now {self.config.learning_rate:g}) or look at the data."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return result

    def _backward(self, batches: list[Batch], counts: dict[str, float]) -> tuple[dict[str, Tensor], float]:
        """Gradients of the mean losses of the global batch, and of the penalty; returns this process's sums."""
        accelerator = self.accelerator
        sums: dict[str, Tensor] = {}
        penalty = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            # Gradients are averaged over processes, once, with the last micro-batch: hence the factor `num_processes`.
            with contextlib.nullcontext() if last else accelerator.no_sync(self.objective):
                with bfloat16_on_cpu(self._bfloat16):
                    terms = self.objective(send_to_device(batch, accelerator.device))
                loss = torch.stack([terms[name] / counts[name] for name in self.terms]).sum()
                loss = loss * accelerator.num_processes
                if last and self.penalty is not None:
                    penalty = self.penalty()
                    loss = loss + penalty
                # `backward` divides by the accumulation of the user's accelerate config; the counts do that already.
                accelerator.backward(loss * accelerator.gradient_accumulation_steps)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
        return sums, float(penalty.detach())

    def _count(self, batches: list[Batch]) -> dict[str, float]:
        local = [self.count(batch) for batch in batches]
        totals = torch.tensor([[float(count[name]) for name in self.terms] for count in local]).sum(0)
        totals = self.accelerator.reduce(totals.to(self.accelerator.device), reduction="sum")
        return {name: max(1.0, float(total)) for name, total in zip(self.terms, totals, strict=True)}

    def _result(
        self, sums: dict[str, Tensor], counts: dict[str, float], penalty: float, norm: float, rate: float
    ) -> StepResult:
        totals = self.accelerator.reduce(torch.stack(list(sums.values())), reduction="sum").tolist()
        means = {name: total / counts[name.removesuffix("_correct")] for name, total in zip(sums, totals, strict=True)}
        return StepResult(
            step=self.step,
            losses={name: means[name] for name in self.terms},
            accuracies={name: means[f"{name}_correct"] for name in self.terms if f"{name}_correct" in means},
            penalty=penalty,
            grad_norm=norm,
            learning_rate=rate,
        )


def _check(
    accelerator: Accelerator, objective: Objective, trained: dict[str, nn.Parameter], config: LoopConfig
) -> None:
    if config.batch_size % accelerator.num_processes:
        raise LoopConfigError(
            f"`batch_size` is {config.batch_size} examples per step over {accelerator.num_processes} processes; "
            "give a multiple of the number of processes."
        )
    if not trained:
        raise LoopConfigError("`parameters` is empty. Give at least one (name, parameter) pair to train.")
    known = {id(parameter) for parameter in trained.values()}
    stray = [name for name, value in objective.named_parameters() if value.requires_grad and id(value) not in known]
    if stray:
        raise LoopConfigError(
            f"{len(stray)} parameters of the objective want gradients and are not in `parameters`, e.g. `{stray[0]}`. "
            "Freeze them with `requires_grad_(False)`, or train them."
        )
