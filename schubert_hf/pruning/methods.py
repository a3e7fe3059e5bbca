"""Methods: functions from a model, some text and a cost to scores of units, in one table.

A method knows nothing of rounds, training or checkpoints: it is given what it needs trained (alphas) or drawn
(batches). The smallest scores are removed (`selection`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..configuration_schubert import SchuBertConfig
from ..cost import BudgetError, Cost, format_size
from ..data.stream import Batch
from ..heads import masked_lm
from ..shape import Shape
from ..training.objective import Objective
from ..training.step import NonFiniteLossError
from .basis import change_basis
from .criteria import Scores, alpha_importance, magnitude_importance, random_importance, ranks_within_groups
from .curvature import measure_rises
from .embeddings import measure_embeddings, project_embeddings
from .gates import Gates, fold_tensors
from .moments import measure_heads
from .plan import PruningPlan
from .precision import Reduce
from .selection import select
from .units import EMBEDDINGS, Group


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        model: to be cut, on its device; its weights are not to be changed.
        objective: makes what training minimises from a model.
        groups: the units that may be removed, and how many of each group there are.
        cost: what the budget counts.
        batches: this process's share of the calibration examples, on the model's device; for `Method.calibrates`.
        reduce: sums a tensor over the processes.
        gates: trained alphas; for `Method.trains_alphas`.
        seed: of what is drawn.
        projects: whether e may be cut of embeddings that have no projection yet.
    """

    model: PreTrainedModel
    objective: Callable[[PreTrainedModel], Objective]
    groups: Mapping[Group, int]
    cost: Cost
    batches: Sequence[Batch]
    reduce: Reduce
    gates: Gates | None
    seed: int
    projects: bool = False


class Scored(NamedTuple):
    """The importance of every unit, shape (units,) by group, and what is cut.

    Attributes:
        model: the given one, or one that computes the same.
        scores: by group.
        tensors: weights to cut instead of the model's own, by name.
        projected: the model with a projection of its embeddings that it lacks, or, where a masked-LM head reads them,
            with others than its own; plans that cut e are for this one.
        alone: the importance in `model`, where `scores` are those in `projected`: a decoder that is tied to embeddings
            without a projection reads the channels themselves. For plans that leave e as it is.
    """

    model: PreTrainedModel
    scores: Scores
    tensors: Mapping[str, Tensor] | None = None
    projected: PreTrainedModel | None = None
    alone: Scores | None = None

    def cut_by(self, groups: Container[Group]) -> PreTrainedModel:
        """The model that loses units of these groups."""
        return self.projected if self.projected is not None and EMBEDDINGS in groups else self.model

    def source_of(self, plan: PruningPlan) -> PreTrainedModel:
        """The model that a plan is for."""
        lacks = self.model.config.project_embeddings is not (plan.source.embedding_size is not None)
        cuts = len(plan.embedding) < (plan.source.embedding_size or 0)
        return self.projected if self.projected is not None and (lacks or cuts) else self.model


def by_curvature(problem: Problem) -> Scored:
    """Ours: by how much the loss rises without a unit, in the basis that sorts keys, queries and values."""
    model = problem.model.eval()
    if not bool(torch.isfinite(torch.stack([parameter.sum() for parameter in model.parameters()])).all()):
        raise NonFiniteLossError("The model's weights are not all finite. Look for NaN in them.")
    model = change_basis(model, measure_heads(model, problem.batches, problem.reduce))
    projected, groups = None, dict(problem.groups)
    if problem.projects or EMBEDDINGS in groups:
        moments = measure_embeddings(problem.objective(model), problem.batches, problem.reduce)
        projected = project_embeddings(model, moments)
        groups[EMBEDDINGS] = projected.config.embedding_size
    if not problem.projects and masked_lm(model) is None:
        model, projected = projected or model, None
    widest = projected or model
    rises = measure_rises(problem.objective(widest), groups, problem.batches, problem.reduce)
    scores, alone = rises.by_cost(problem.cost, Shape.of(widest.config)), None
    if problem.projects and rises.decoded is not None:
        alone = rises.without_projection().by_cost(problem.cost, Shape.of(model.config))
    return Scored(model, scores, projected=projected, alone=alone)


def by_alphas(problem: Problem) -> Scored:
    """Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628), steps 4 and 5: the rest are folded in."""
    assert problem.gates is not None
    scores = alpha_importance({group: alpha.cpu() for group, alpha in problem.gates.values().items()})
    return Scored(problem.model, scores, fold_tensors(problem.model, problem.gates))


def by_magnitude(problem: Problem) -> Scored:
    """By the size of the weights, all kinds of units together."""
    return Scored(problem.model, magnitude_importance(problem.groups, problem.model.named_parameters()))


def at_random(problem: Problem) -> Scored:
    """By the seed alone."""
    return Scored(problem.model, random_importance(problem.groups, problem.seed))


def uniformly(problem: Problem) -> Scored:
    """By rank within the group, so that every dimension shrinks by the same factor: "BERT-all uniform" of the paper.

    The paper trains that shape; which units of a trained model should make it is ours to say: those of the largest
    weights.
    """
    return Scored(problem.model, ranks_within_groups(by_magnitude(problem).scores))


def by_place(problem: Problem) -> Scored:
    """All alike: `keep_evenly` asks for the number of layers only."""
    return Scored(problem.model, {group: torch.zeros(units) for group, units in problem.groups.items()})


def keep_evenly(scores: Scores, config: SchuBertConfig, cost: Cost, budget: float, **_: Any) -> PruningPlan:
    """Fewer layers, evenly spaced, first and last among them: "BERT-l" of Khetan & Karnin 2020.

    As Sanh et al. 2019 (DistilBERT, arXiv 1910.01108) take every other layer. As many stay as the budget has room for.
    The sets are not nested (0 2 4, 0 1 3 4), so no order of the layers could give them.
    """
    source, layers = Shape.of(config), range(len(config.hidden_sizes))
    for number in reversed(layers):  # gaps between the layers that stay; of one alone it is the last, which is read
        kept = {round(i * layers[-1] / number) for i in range(number + 1)} if number else {layers[-1]}
        plan = PruningPlan.from_kept(source, {Group("l", layer): (0,) if layer in kept else () for layer in layers})
        if cost(plan.shape) <= budget:
            return plan
    raise BudgetError(
        f"One layer alone costs {format_size(cost(plan.shape))} {cost.unit}, more than the target "
        f"{format_size(budget)}. Give a larger target, or another `method`."
    )


@dataclass(frozen=True)
class Method:
    """One way to prune.

    Attributes:
        score: says what each unit is worth.
        help: for the command line: which units are removed.
        page: for the page of a model that was pruned by it: a sentence or two.
        select: from scores to a plan whose cost is at most the budget: see `selection.select`.
        calibrates: whether `Problem.batches` are wanted. Then plans compete on them (`search`), and what is left is
            refit to make up for the cut before any training (`restoration`).
        trains_alphas: whether `Problem.gates` are wanted.
        dimensions: the only ones that it can prune; None: any.
        teacher_weight: of the dense model in recovery, unless the settings say otherwise.
    """

    score: Callable[[Problem], Scored]
    help: str
    page: str
    select: Callable[..., PruningPlan] = field(default=select)
    calibrates: bool = False
    trains_alphas: bool = False
    dimensions: str | None = None
    teacher_weight: float = 0.0


CUT = "cut to an exact budget"
TRAIN = "and the smaller model is trained"
METHODS = {
    "auto": Method(
        by_curvature,
        help="the units whose removal raises the loss least, in the best basis; the rest is refit to make up for it",
        page="Keys, queries and values of every head are turned into the basis that concentrates its signal in a few "
        f"directions; the units\nwhose removal raises the loss least are {CUT}, of the kinds that did best "
        "in a comparison of\nplans on training text; every projection that reads what was cut is refit by least "
        f"squares on real text; {TRAIN}\nwith the dense one as its teacher.",
        calibrates=True,
        teacher_weight=1.0,
    ),
    "schubert": Method(
        by_alphas,
        help="the units with the smallest alphas, Algorithm 1 of the paper",
        page="Algorithm 1 of Khetan & Karnin (2020): every unit gets a trainable scale, alpha, under an L1 penalty; "
        f"the units with the smallest\nalphas are {CUT}, the other alphas are folded into the weights, {TRAIN}.",
        trains_alphas=True,
    ),
    "magnitude": Method(
        by_magnitude,
        help="the units with the smallest weights",
        page=f"The units with the smallest weights are {CUT}, {TRAIN}.",
    ),
    "random": Method(at_random, help="any units", page=f"Units drawn at random are {CUT}, {TRAIN}: a baseline."),
    "uniform": Method(
        uniformly,
        help="the units with the smallest weights of every dimension, all shrunk by the same factor",
        page="Every dimension is shrunk by the same factor, the units with the smallest weights first, to an exact "
        "budget, and the smaller\nmodel is trained: a baseline of Khetan & Karnin (2020).",
    ),
    "layers": Method(
        by_place,
        help="whole layers, so that the rest are evenly spaced",
        page=f"Whole layers are dropped so that the rest are evenly spaced, {TRAIN}: a baseline of Khetan & Karnin\n"
        "(2020).",
        select=keep_evenly,
        dimensions="l",
    ),
}


def describe_method(config: dict[str, Any]) -> str:
    """What the page of a run with these settings says; records of version 0.1 name no method."""
    return METHODS[config.get("method", "schubert")].page
