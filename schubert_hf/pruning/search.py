"""Plans compete: scores of different kinds compare badly, so a handful of plans are cut, refit and measured.

Which kinds may go decides more than the scores do. Where half of a network goes, a narrower stream may cost more than
it brings, where two thirds go it may be the other way round, and whether heads may go as wholes depends on the model.
So the units are scored once, and then these plans are tried, each to the same budget:

1. all kinds in one order, as the scores say;
2. filters, keys, queries and values alone, the stream left as wide as it is;
3. the same with fixed narrower streams, ever narrower as long as that helps;
4. the best of them with heads, and with whole layers, in the order.

Each is refit on a little text and compared with the network that was cut on a fold of it: the divergence of its
predictions, T^2 KL at T = 1, summed over the terms of the objective. An objective that follows the dense model, or
that says no more than its loss, is compared by its loss. The best plan is the one that is carried out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..cost import BudgetError
from ..training.objective import Objective
from .criteria import Scores
from .data import first_tokens
from .least_squares import RIDGE
from .phases import narrowed
from .plan import PruningPlan
from .precision import Batch, Reduce, summed
from .restoration import restore
from .surgery import compact
from .units import Group

FITTED, MEASURED = 1024, 2048  # tokens that a plan is refit on, and measured on: enough to choose among few plans
STEP = 1 / 8  # of the stream: widths that are tried lie so far apart, and half as far around the best
STREAM = Group("h", None)
LAST = 1e30  # a score that nothing else reaches: such units go when nothing else is left
Choose = Callable[[Scores], PruningPlan]


@dataclass
class Competition:
    """Plans for one network and one budget.

    Args:
        model: the network that is cut, on its device.
        objective: makes what training minimises from a model.
        scores: importance of the units of every group that may be cut.
        choose: from scores to a plan for the budget; raises `BudgetError` where those groups cannot meet it.
        batches: what plans are refit on, of which about `FITTED` tokens are used.
        fold: what they are measured on, about `MEASURED` tokens of it.
        reduce: sums a tensor over the processes.

    Attributes:
        tried: what came of every plan: its kinds, the width of its stream and its divergence, in nats.
    """

    model: PreTrainedModel
    objective: Callable[[PreTrainedModel], Objective]
    scores: Scores
    choose: Choose
    batches: Sequence[Batch]
    fold: Sequence[Batch]
    reduce: Reduce | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = first_tokens(FITTED, self.batches, self.reduce)
        self.fold = first_tokens(MEASURED, self.fold, self.reduce)
        self.kinds = {group.dimension for group in self.scores}
        self.best: tuple[float, PruningPlan] | None = None
        self.known: dict[PruningPlan, float] = {}
        self.wanted: list[Mapping[str, Tensor]] = []

    def run(self) -> PruningPlan:
        """The best plan; where there is nothing to choose, the only one, and nothing is measured."""
        everything = self.choose(self.scores)
        few = self.kinds - set("hal")
        if not few or few == self.kinds:
            return everything
        self._try(everything, self.kinds)
        width: int | None = None
        if "h" in self.kinds:
            width = self._narrow(few)
        else:
            self._try(self._plan(few), few)
        for letter in "al":
            if letter in self.kinds:
                self._try(self._plan(few | {letter}, width), few | {letter})
        assert self.best is not None
        return self.best[1]

    def _narrow(self, few: set[str]) -> int | None:
        """Tries ever narrower streams as long as that helps; returns the best width, None for the whole one."""
        whole = len(self.scores[STREAM])
        least, best = math.inf, 1.0

        def improves(share: float) -> bool | None:
            """None where that width cannot meet the budget."""
            nonlocal least, best
            narrow = share < 1
            plan = self._plan(few, round(share * whole) if narrow else None)
            if plan is None:
                return None
            loss = self._try(plan, few | ({"h"} if narrow else set()))
            if loss >= least:
                return False
            least, best = loss, share
            return True

        for number in range(round(1 / STEP)):
            if improves(1 - number * STEP) is False:
                break
        improves(best - STEP / 2 if best == 1 else best + STEP / 2)
        return round(best * whole) if best < 1 else None

    def _plan(self, kinds: set[str], width: int | None = None) -> PruningPlan | None:
        """The plan that cuts some kinds, and the stream to a width; None where they cannot meet the budget."""
        scores = {group: score for group, score in self.scores.items() if group.dimension in kinds}
        if width is not None:
            channels = self.scores[STREAM]
            fixed = torch.full_like(channels, LAST)
            order = channels.argsort(stable=True)[: len(channels) - width]
            fixed[order] = -1 / (1 + torch.arange(len(order), dtype=fixed.dtype))  # before all others, in their order
            scores = {STREAM: fixed, **scores}
        try:
            plan = self.choose(scores)
        except BudgetError:
            return None
        # Where all else has gone and the budget is not met, the stream shrinks further: no plan of this width.
        return plan if width is None or len(plan.hidden) > width - STEP * len(channels) else None

    def _try(self, plan: PruningPlan | None, kinds: set[str]) -> float:
        if plan is None:
            return math.inf
        if plan not in self.known:
            self.known[plan] = loss = self._measure(plan)
            letters = "".join(letter for letter in "hfakvl" if letter in kinds)
            self.tried.append({"dimensions": letters, "hidden_size": plan.shape.hidden_sizes[-1], "divergence": loss})
            if self.best is None or loss < self.best[0]:
                self.best = loss, plan
        return self.known[plan]

    @torch.no_grad()
    def _measure(self, plan: PruningPlan) -> float:
        """Divergence from the network that is cut, a mean over the items of each term; nats."""
        cut = compact(self.model, plan)
        cut = restore(cut, self.model, plan, self.batches, reduce=self.reduce, ridge=RIDGE)
        objective = narrowed(self.objective, plan)(cut).eval()
        compares = type(objective).predict is not Objective.predict and not objective.follows_dense
        if compares and not self.wanted:
            self.wanted = [objective.predict(dict(batch), self.model.eval()).logits for batch in self.fold]
        sums = torch.zeros(2, len(objective.terms))
        for number, batch in enumerate(self.fold):
            counts = objective.count(dict(batch))
            if compares:
                logits = objective.predict(dict(batch)).logits
                found = {term: objective.divergence(x, self.wanted[number][term], 1.0) for term, x in logits.items()}
            else:
                found = objective(dict(batch))
            sums += torch.tensor([[float(found[term]), float(counts[term])] for term in objective.terms]).T
        losses, numbers = summed(sums, self.reduce)
        loss = float((losses / numbers.clamp(min=1)).sum())
        return math.inf if math.isnan(loss) else loss  # not a number: worse than any
