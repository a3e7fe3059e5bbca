"""Methods: how it is decided what goes. Each is a function from the round to a decision; choosing is a look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from ..cost import BudgetError, Shape, format_size, penalty_weights
from ..training.loop import TrainingLoop
from ..training.objective import Objective
from ..training.stream import mix_seed
from .budget import Budget
from .config import PruningConfig
from .data import PruningData
from .gated_objective import GatedObjective
from .gates import Gates, fold_tensors
from .importance import (
    Scores,
    alpha_importance,
    magnitude_importance,
    random_importance,
    ranks_within_groups,
)
from .plan import PruningPlan
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
        config: every setting of the run.
        accelerator: decides devices, processes and precision.
        data: training examples and held-out ones.
        position: of the next example in the training stream.
        budget: what the cost may be after the round, and the cost.
        limit: the budget of this round, in the cost's unit.
    """

    number: int
    description: str
    model: PreTrainedModel
    objective: Objective
    config: PruningConfig
    accelerator: Accelerator
    data: PruningData
    position: int
    budget: Budget
    limit: float

    @property
    def groups(self) -> dict[Group, int]:
        """The units that may go."""
        return find_groups(self.model.config, self.config.dimensions)

    def select(self, scores: Scores) -> PruningPlan:
        """The plan that keeps the units of the highest scores, within the budget."""
        config, multiples = self.model.config, self.config.multiples
        return self.choose(lambda limit: select(scores, config, self.budget.cost, limit, multiple_of=multiples))

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
        examples: how many of the training stream were used up.
    """

    plan: PruningPlan
    tensors: Mapping[str, Tensor] | None = None
    alphas: dict[str, list[float]] = field(default_factory=dict)
    examples: int = 0


def prune_by_alphas(this: Round) -> Decision:
    """Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628), steps 1 to 5.

    All alphas are 1; they alone are trained under the L1 penalty; the smallest go, the others are folded in.
    """
    gates = train_alphas(this)
    scores = alpha_importance({group: alpha.cpu() for group, alpha in gates.values().items()})
    examples = this.config.alpha_steps * this.config.batch_size
    return Decision(this.select(scores), fold_tensors(this.model, gates), gates.summary(), examples)


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
        data = this.data
        loop.run(data.stream, data.collator, offset=this.position, description=f"{this.description} alphas")
    finally:
        this.model.requires_grad_(True)
        this.accelerator.free_memory()
    return gates


METHODS: dict[str, Callable[[Round], Decision]] = {
    "schubert": prune_by_alphas,
    "magnitude": prune_by_magnitude,
    "random": prune_at_random,
    "uniform": prune_uniformly,
    "layers": drop_layers,
}
