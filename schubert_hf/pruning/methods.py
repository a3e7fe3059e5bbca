"""Methods: how it is decided what goes. Each is a function from the round to a decision; choosing is a look-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor
from transformers import PreTrainedModel

from ..cost import BudgetError, format_size, penalty_weights
from ..data.stream import Batch, for_stream, mix_seed
from ..shape import Shape
from ..training.loop import TrainingLoop
from ..training.objective import Objective
from ..training.step import NonFiniteLossError
from .basis import change_basis
from .budget import Budget
from .config import PruningConfig
from .criteria import (
    Scores,
    alpha_importance,
    magnitude_importance,
    random_importance,
    ranks_within_groups,
)
from .curvature import curvature_importance
from .data import PruningData
from .gates import GatedObjective, Gates, fold_tensors
from .moments import measure_heads
from .phases import ALPHAS, Watch
from .plan import PruningPlan
from .restoration import restore
from .selection import select
from .units import Group, find_groups


@dataclass(frozen=True)
class Round:
    """What a method may look at.

    Attributes:
        number: 1 for the first.
        description: of progress bars, e.g. "round 1/3".
        model: to be cut, on its device; not to be changed.
        objective: what training minimises, with that model inside.
        make_objective: the same for another model.
        config: every setting of the run.
        accelerator: decides devices, processes and precision.
        data: training examples and held-out ones.
        position: of the next example in the training stream.
        budget: what the cost may be after the round, and the cost.
        limit: the budget of this round, in the cost's unit.
        run_phase: trains, so that it can be stopped and continued at any step; see `PhaseRunner.run`.
    """

    number: int
    description: str
    model: PreTrainedModel
    objective: Objective
    make_objective: Callable[[PreTrainedModel], Objective]
    config: PruningConfig
    accelerator: Accelerator
    data: PruningData
    position: int
    budget: Budget
    limit: float
    run_phase: Callable[[str, TrainingLoop, str, Watch | None], None]

    @property
    def groups(self) -> dict[Group, int]:
        """The units that may go."""
        return find_groups(self.model.config, self.config.dimensions)

    def select(self, scores: Scores) -> PruningPlan:
        """The plan that keeps the units of the highest scores, within the budget."""
        config, multiples = self.model.config, self.config.multiples
        return self.choose(lambda limit: select(scores, config, self.budget.cost, limit, multiple_of=multiples))

    @property
    def calibration_examples(self) -> int:
        """How many training examples are looked at: whole batches."""
        size = self.config.batch_size
        return -(-self.config.calibration_examples // size) * size

    def calibration_batches(self) -> Iterator[Batch]:
        """The share of this process in the next `calibration_examples` of the training stream, on its device."""
        accelerator, config = self.accelerator, self.config
        share = config.batch_size // accelerator.num_processes
        size = config.micro_batch_size or share
        collate = for_stream(self.data.collator)
        set_seed(config.seed)  # a collator of the user's may draw its masks from the global generators
        first = self.position + accelerator.process_index * share  # as in training: a stream may be read in order
        for start in range(first, first + self.calibration_examples, config.batch_size):
            for begin in range(0, share, size):
                positions = range(start + begin, start + min(begin + size, share))
                batch = collate([self.data.stream[position] for position in positions])
                yield send_to_device(batch, accelerator.device)

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """The sum of what the processes hold, on all of them."""
        summed: Tensor = self.accelerator.reduce(tensor.to(self.accelerator.device), reduction="sum")
        return summed

    def choose(self, plan_for: Callable[[float], PruningPlan]) -> PruningPlan:
        """The plan for this round's limit, made by the main process and sent to the others."""
        return self.budget.choose(self.limit, plan_for)


@dataclass(frozen=True)
class Decision:
    """What goes, and what was learned about what stays.

    Attributes:
        plan: what stays.
        tensors: weights to cut instead of the model's own, by name.
        alphas: smallest, mean and largest by group.
        examples: how many of the training stream were looked at, besides those of phases.
        finish: what is to be done to the compacted model before it is trained.
    """

    plan: PruningPlan
    tensors: Mapping[str, Tensor] | None = None
    alphas: dict[str, list[float]] = field(default_factory=dict)
    examples: int = 0
    finish: Callable[[PreTrainedModel], PreTrainedModel] | None = None


def prune_and_restore(this: Round) -> Decision:
    """Ours: nothing is trained, and nearly nothing is lost.

    Keys, queries and values are turned into the basis in which few of them carry all (`basis`); the units that the
    loss misses least go (`curvature`); then all that reads what was cut is solved anew (`restoration`).
    """
    batches = list(this.calibration_batches())
    reduce = this.sum_over_processes
    this.model.eval()
    if not bool(torch.isfinite(torch.stack([parameter.sum() for parameter in this.model.parameters()])).all()):
        raise NonFiniteLossError(f"{this.description}: the model's weights are not all finite. Look for NaN in them.")
    sorted_model = change_basis(this.model, measure_heads(this.model, batches, reduce))
    objective = this.make_objective(sorted_model)
    scores = curvature_importance(objective, this.groups, this.budget.cost, batches, reduce)
    plan = this.select(scores)
    return Decision(
        plan,
        dict(sorted_model.named_parameters(remove_duplicate=False)),
        examples=this.calibration_examples,
        finish=lambda cut: restore(cut, sorted_model, plan, batches, reduce=reduce),
    )


def prune_by_alphas(this: Round) -> Decision:
    """Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628), steps 1 to 5.

    All alphas are 1; they alone are trained under the L1 penalty; the smallest go, the others are folded in.
    """
    gates = train_alphas(this)
    scores = alpha_importance({group: alpha.cpu() for group, alpha in gates.values().items()})
    return Decision(this.select(scores), fold_tensors(this.model, gates), gates.summary())


def prune_by_magnitude(this: Round) -> Decision:
    """The units of the smallest weights go, of all kinds together."""
    return Decision(this.select(magnitude_importance(this.groups, this.model.named_parameters())))


def prune_at_random(this: Round) -> Decision:
    """Any units go."""
    return Decision(this.select(random_importance(this.groups, mix_seed(this.config.seed, this.number))))


def prune_uniformly(this: Round) -> Decision:
    """Every dimension shrinks by the same factor: "BERT-all uniform" of Khetan & Karnin 2020.

    The paper trains that shape; which units of a trained model should make it is ours to say: those of the largest
    weights.
    """
    return Decision(this.select(ranks_within_groups(magnitude_importance(this.groups, this.model.named_parameters()))))


def drop_layers(this: Round) -> Decision:
    """Fewer layers, evenly spaced, first and last among them: "BERT-l" of Khetan & Karnin 2020.

    As Sanh et al. 2019 (DistilBERT, arXiv 1910.01108) take every other layer. As many stay as the budget has room for.
    """
    source = Shape.of(this.model.config)
    layers = len(source.hidden_sizes)

    def plan_for(limit: float) -> PruningPlan:
        plans = [PruningPlan.from_kept(source, _keep_evenly(layers, number)) for number in range(layers, 0, -1)]
        for plan in plans:
            if this.budget.cost(plan.shape) <= limit:
                return plan
        raise BudgetError(
            f"One layer alone costs {format_size(this.budget.cost(plans[-1].shape))} {this.budget.unit}, more than "
            f"the target {format_size(limit)}. Give a larger target, or another `method`."
        )

    return Decision(this.choose(plan_for))


def _keep_evenly(layers: int, number: int) -> dict[Group, tuple[int, ...]]:
    # One layer alone: the last, which the head reads.
    kept = {round(i * (layers - 1) / (number - 1)) for i in range(number)} if number > 1 else {layers - 1}
    return {Group("l", layer): (0,) if layer in kept else () for layer in range(layers)}


def train_alphas(this: Round) -> Gates:
    """Step 3 of Algorithm 1: min over alpha of L + gamma * penalty, every weight frozen."""
    gates = Gates(this.model.config, this.config.dimensions).to(this.accelerator.device)
    beta = penalty_weights(this.budget.cost, Shape.of(this.model.config), gates.groups)
    this.model.requires_grad_(False)
    try:
        loop = TrainingLoop(
            this.accelerator,
            GatedObjective(this.objective, gates),
            gates.named_parameters(),
            this.config.alpha_loop(),
            penalty=lambda: this.config.gamma * gates.penalty(beta),
        )
        this.run_phase(ALPHAS, loop, f"{this.description} alphas", gates.drift)
    finally:
        this.model.requires_grad_(True)
        this.accelerator.free_memory()
    return gates


METHODS: dict[str, Callable[[Round], Decision]] = {
    "auto": prune_and_restore,
    "schubert": prune_by_alphas,
    "magnitude": prune_by_magnitude,
    "random": prune_at_random,
    "uniform": prune_uniformly,
    "layers": drop_layers,
}
