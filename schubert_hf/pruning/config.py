"""PruningConfig: every setting of a pruning run, flat, with the help text that the command line shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..cost import target_unit
from ..errors import SchuBertError
from ..shape import DIMENSIONS
from ..training.loop_config import AUTO, NO, LoopConfig, check_ranges, option
from .methods import METHODS
from .units import check_dimensions

DEFAULT = "hfakv"  # dimensions that suit any model; `auto`: those that suit the one at hand
COSTS = ("parameters", "flops", "latency")
# What kernels are faster at multiples of; heads are counted one by one (measured: examples/benchmarks/alignment.py).
ALIGNED = ("h", "f", "k", "v", "e")
# May differ between a run and its continuation: rounding apart, they change nothing.
FREE = {"micro_batch_size", "save_steps", "keep_checkpoints"}


class PruningConfigError(SchuBertError):
    """A setting that is not allowed."""


@dataclass(frozen=True)
class PruningConfig:
    """Settings of a pruning run: our own method, Algorithm 1 (Khetan & Karnin 2020), or a baseline.

    What the paper does not give (gamma, rounds, learning rates, steps) has defaults of ours, chosen on the embedded
    model. Fields stay as they were given; `resolve` says what they mean in a run.

    Raises:
        PruningConfigError: a value out of its range, named with the range.
        BudgetError: `target` is no size.
    """

    target: str | float = option(
        "60%",
        'What must remain of the whole model, embeddings included: "66M", 0.6, "60%"; or "2.5GFLOPs", or "12ms". '
        'Several sizes on the way down: "99M,88M,77M", each with its own rounds, model and page.',
    )
    cost: str | None = option(
        None,
        "What the target counts: parameters, flops or latency, the last two of one forward pass without a head. "
        "Default: what the target's unit says, else parameters.",
    )
    cost_batch_size: int = option(1, "Sequences in that forward pass.", least=1)
    cost_seq_len: int = option(128, "Tokens per sequence in that forward pass.", least=1)
    method: str = option(
        "auto", "What is removed: " + "; ".join(f"{name}: {one.help}" for name, one in METHODS.items()) + "."
    )
    dimensions: str = option(
        "auto",
        "What is pruned: letters of h hidden, f filters, a heads, k keys and queries, v values, l whole layers, "
        "e embedding size; auto: hfakv, and e where the target counts parameters and the method is auto.",
    )
    rounds: int = option(
        1,
        "Rounds T of [train alphas, select, cut, recover], for each target. More took longer and were rarely better.",
        least=1,
    )
    multiple_of: str | int | Mapping[str, int] = option(
        8,
        'Kept widths are multiples of this: 8 holds for h, f, k, v and e; "h=16,k=4" sets some, and others are free.',
    )
    calibration_examples: int | None = option(
        None,
        "Examples per round on which method auto scores units, compares plans and refits the remaining weights, in "
        "whole batches, at least two. Default: ten tokens for every input of the widest projection.",
        least=1,
    )
    alpha_steps: int = option(
        30, "Steps per round that train the alphas of method schubert, the weights frozen.", least=1
    )
    alpha_learning_rate: float = option(0.02, "Learning rate of the alphas.", least=0)
    gamma: float = option(
        1.0, "Weight in nats of the L1 penalty on the alphas, which is 1 when every alpha is 1.", least=0
    )
    recovery_steps: int = option(180, "Steps per round that train the smaller model; 0 for none.", least=0)
    recovery_learning_rate: float | None = option(
        None,
        "Peak learning rate of the recovery. Default: found by measuring, in each round.",
        least=0,
    )
    recovery_warmup_steps: int = option(5, "Steps of linear warm-up in each recovery.", least=0)
    weight_decay: float = option(0.01, "Weight decay of matrices in the recovery.", least=0)
    teacher_weight: float | None = option(
        None,
        "Weight of the dense model's predictions in the recovery's loss; 0 for none. Default: 1 with method auto, "
        "else 0.",
        least=0,
    )
    teacher_temperature: float = option(1.0, "Temperature at which these predictions are compared.", least=0.01)
    teacher_hidden_weight: float = option(
        0.0, "Weight of the dense model's hidden states in the recovery's loss.", least=0
    )
    batch_size: int = option(32, "Examples per step, over all processes.", least=1)
    micro_batch_size: int | None = option(
        None, "Examples per process and forward pass; default: no accumulation.", least=1
    )
    precision: str = option(
        AUTO,
        "What the recovery multiplies in where the accelerate config says nothing: auto: bfloat16 on a CPU that makes "
        "such products by itself, with weights and sums in float32; no: float32.",
    )
    max_grad_norm: float = option(1.0, "Clipping of the recovery's gradients; 0 for none.", least=0)
    eval_examples: int = option(256, "Held-out examples per evaluation.", least=1)
    save_steps: int = option(
        200, "Training steps between checkpoints; one is also written after each cut and each round.", least=1
    )
    keep_checkpoints: int | None = option(2, "How many checkpoints are kept.", least=1)
    seed: int = option(0, "Seed of the order of examples, the masks and dropout.", least=0)

    def __post_init__(self) -> None:
        for name, allowed in {"method": tuple(METHODS), "cost": (None, *COSTS), "precision": (AUTO, NO)}.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(str(value) for value in allowed if value is not None)
                raise PruningConfigError(f"`{name}` is {getattr(self, name)!r}; allowed is {known}.")
        try:
            check_dimensions(DEFAULT if self.dimensions == AUTO else self.dimensions)
        except (TypeError, ValueError) as error:
            raise PruningConfigError(str(error)) from error
        check_ranges(self, PruningConfigError)
        for target in self.targets:
            target_unit(target)  # is checked as it is read
        _ = self.multiples  # likewise

    def resolve(self) -> PruningConfig:
        """The same settings with every default filled in that the settings alone decide.

        The recovery's learning rate is measured, and the model has a say in `dimensions` (see `resolve_dimensions`).
        """
        method, given = METHODS[self.method], self.dimensions
        return replace(
            self,
            dimensions=method.dimensions or (given if given == AUTO else check_dimensions(given)),
            multiple_of=self.multiples,
            teacher_weight=method.teacher_weight if self.teacher_weight is None else self.teacher_weight,
        )

    def identity(self) -> dict[str, Any]:
        """What decides a run's result: all but `FREE`."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    @property
    def multiples(self) -> dict[str, int]:
        """`multiple_of` by letter: 8 -> 8 for each of h, f, k, v, e; "h=16,k=4" -> {"h": 16, "k": 4}."""
        value = self.multiple_of
        if isinstance(value, str):
            pairs = [re.fullmatch(r"\s*([a-z])\s*=\s*(\d+)\s*", part) for part in value.split(",")]
            if all(pairs):
                value = {pair[1]: int(pair[2]) for pair in pairs if pair}
        if type(value) is int or (isinstance(value, str) and value.strip().isdecimal()):
            value = dict.fromkeys(ALIGNED, int(value))
        if (
            not isinstance(value, Mapping)
            or set(value) - {*DIMENSIONS, "e"}
            or any(type(multiple) is not int or multiple < 1 for multiple in value.values())
        ):
            raise PruningConfigError(
                f"`multiple_of` is {value!r}; give a whole number like 8 (for h, f, k, v and e), "
                'or one per letter like "h=16,f=32,k=4".'
            )
        return dict(value)

    @property
    def targets(self) -> list[str | float]:
        """The sizes that `target` names, one by one."""
        return [part.strip() for part in self.target.split(",")] if isinstance(self.target, str) else [self.target]

    @property
    def calibration_size(self) -> int:
        """`calibration_examples` in whole batches, at least two: one to fit, one to choose by."""
        assert self.calibration_examples is not None  # see `PruningData.resolve`
        return max(2, -(-self.calibration_examples // self.batch_size)) * self.batch_size

    def alpha_loop(self) -> LoopConfig:
        """How the alphas are trained: no decay, no clipping (it would scale the penalty's pull with the loss's)."""
        fixed = {"schedule": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0, "precision": NO}
        return LoopConfig.of(self, steps=self.alpha_steps, learning_rate=self.alpha_learning_rate, **fixed)

    def recovery_loop(self, learning_rate: float) -> LoopConfig:
        """How the smaller model is trained after each cut, at a peak rate that was given or found."""
        steps, warmup = self.recovery_steps, min(self.recovery_warmup_steps, self.recovery_steps)
        return LoopConfig.of(self, steps=steps, learning_rate=learning_rate, warmup_steps=warmup)
