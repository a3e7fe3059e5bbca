"""Plans compete: scores of different kinds compare badly, so a handful of plans are cut, refit and measured.

Which kinds may go decides more than the scores do. Where half of a network goes, a narrower stream may cost more than
it brings, where two thirds go it may be the other way round, and whether heads may go as wholes depends on the model.
So the units are scored (`methods.by_curvature`), and then these plans are tried, each to the same budget:

1. all kinds in one order, as the scores say;
2. filters, keys, queries and values alone, embeddings and stream left as wide as they are;
3. the same with fixed narrower embeddings, and with the best of them fixed narrower streams, ever narrower as long as
   that helps;
4. the best of them, and 2 where it is not hopeless, with heads, and with whole layers, in the order.

Each is refit on a little text and compared with the network that was cut on a fold of it: the divergence of its
predictions, T^2 KL at T = 1, summed over the terms of the objective. An objective that follows the dense model, or
that says no more than its loss, is compared by its loss. The best plan is the one that is carried out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..cost import BudgetError
from ..run.memory import return_freed
from ..shape import LETTERS, Shape
from ..training.micro_batches import by_length
from ..training.objective import Objective
from .criteria import Scores
from .data import first_predictions, first_tokens, widest_input
from .least_squares import RIDGE
from .methods import Scored
from .phases import narrowed
from .plan import PruningPlan
from .precision import Batch, Reduce, summed
from .restoration import restore
from .surgery import compact
from .units import EMBEDDINGS, STREAM, Group

# Tokens that a plan is refit on, for each input of the widest projection: on fewer, wide streams are fitted worse than
# narrow ones, and look worse than they are (examples/benchmarks/RESULTS.md). Fewer than `LEAST` say little; more than
# `MOST` take too long.
FITTED, LEAST, MOST = 2, 1024, 4096
MEASURED = 2048  # tokens that a plan is measured on
STEP = 1 / 8  # of stream or embeddings: widths that are tried lie so far apart, and half as far around the best
HOPELESS = 2  # times the best loss
LAST = 1e30  # a score that nothing else reaches: such units go when nothing else is left
Choose = Callable[[Scores], PruningPlan]
Widths = Mapping[Group, int]


@dataclass
class Competition:
    """Plans for one network and one budget.

    Args:
        scored: the network that is cut, on its device, and the importance of the units of every group that may be cut.
        objective: makes what training minimises from a model.
        choose: from scores to a plan for the budget; raises `BudgetError` where those groups cannot meet it.
        batches: what plans are refit on, of which as many are used as `FITTED` says.
        fold: what they are measured on, about `MEASURED` tokens of it.
        reduce: sums a tensor over the processes.

    Attributes:
        tried: what came of every plan: its kinds, the width of its stream and its divergence, in nats.
    """

    scored: Scored
    objective: Callable[[PreTrainedModel], Objective]
    choose: Choose
    batches: Sequence[Batch]
    fold: Sequence[Batch]
    reduce: Reduce | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model, self.scores = self.scored.model, self.scored.scores
        fitted = max(LEAST, min(MOST, FITTED * widest_input(Shape.of(self.model.config))))
        self.batches = first_tokens(fitted, self.batches, self.reduce)
        fold = first_predictions(MEASURED, self.fold, self.objective(self.model), self.reduce)
        self.fold = list(by_length(fold, self.model.device))
        self.kinds = {group.dimension for group in self.scores}
        self.best: tuple[float, PruningPlan] | None = None
        self.known: dict[PruningPlan, float] = {}
        self.wanted: list[Mapping[str, Tensor]] = []

    def run(self, bar: Any = None) -> PruningPlan:
        """The best plan; where there is nothing to choose, the only one, and nothing is measured.

        Args:
            bar: of tqdm, which counts the plans that were measured.
        """
        with contextlib.nullcontext() if bar is None else bar:
            self.bar = bar
            return self._run()

    def _run(self) -> PruningPlan:
        everything = self.choose(self.scores)
        few = self.kinds - set("ehal")
        if not few or few == self.kinds:
            return everything
        self._try(everything, self.kinds)
        widths: Widths = {}
        for group in (EMBEDDINGS, STREAM):
            if group in self.scores:
                widths = self._narrow(few, group, widths)
        self._attempt(few, widths)
        assert self.best is not None
        for letter in sorted(self.kinds & set("al")):
            self._attempt(few | {letter}, widths)
            if self._attempt(few, {}) < HOPELESS * self.best[0]:
                self._attempt(few | {letter}, {})
        return self.best[1]

    def _attempt(self, kinds: set[str], widths: Widths) -> float:
        return self._try(self._plan(kinds, widths), kinds | {group.dimension for group in widths})

    def _narrow(self, few: set[str], group: Group, widths: Widths) -> Widths:
        """Tries ever fewer units of a group as long as that helps; returns the best widths, of others those given.

        At last half a step is tried, too; below the full width only where it may help. A narrower group can win no
        more than what is lost beside it, so where a whole step loses twice as much, half of it wins nothing.
        """
        whole = len(self.scores[group])
        least, best, last = math.inf, 1.0, 0.0

        def fixed(share: float) -> Widths:
            return {**widths, group: round(share * whole)} if share < 1 else widths

        def improves(share: float) -> bool | None:
            """None where that width cannot meet the budget."""
            nonlocal least, best, last
            plan = self._plan(few, fixed(share))
            if plan is None:
                return None
            last = self._try(plan, few | {group.dimension for group in fixed(share)})
            if last >= least:
                return False
            least, best = last, share
            return True

        for number in range(round(1 / STEP)):
            if improves(1 - number * STEP) is False:
                break
        if best < 1:
            improves(best + STEP / 2)
        elif last < HOPELESS * least:
            improves(1 - STEP / 2)
        return fixed(best)

    def _plan(self, kinds: set[str], widths: Widths = MappingProxyType({})) -> PruningPlan | None:
        """The plan that cuts some kinds, and others to fixed widths; None where they cannot meet the budget."""
        cuts_embeddings = EMBEDDINGS.dimension in kinds or EMBEDDINGS in widths
        known = self.scores if cuts_embeddings or self.scored.alone is None else self.scored.alone
        scores = {group: score for group, score in known.items() if group.dimension in kinds}
        for group, width in widths.items():
            score = known[group]
            fixed = torch.full_like(score, LAST)
            order = score.argsort(stable=True)[: len(score) - width]
            fixed[order] = -1 / (1 + torch.arange(len(order), dtype=fixed.dtype))  # before all others, in their order
            scores = {group: fixed, **scores}
        try:
            plan = self.choose(scores)
        except BudgetError:
            return None
        # Where all else has gone and the budget is not met, these shrink further: no plan of these widths.
        left = {STREAM: len(plan.hidden), EMBEDDINGS: len(plan.embedding)}
        kept = all(left[group] > width - STEP * len(self.scores[group]) for group, width in widths.items())
        return plan if kept else None

    def _try(self, plan: PruningPlan | None, kinds: set[str]) -> float:
        if plan is None:
            return math.inf
        if plan not in self.known:
            self.known[plan] = loss = self._measure(plan)
            return_freed()
            if self.bar is not None:
                self.bar.update()
            letters, shape = "".join(letter for letter in LETTERS if letter in kinds), plan.shape
            sizes = {"hidden_size": shape.hidden_sizes[-1], "embedding_size": shape.embedding_size}
            sizes = {name: size for name, size in sizes.items() if size is not None}
            self.tried.append({"dimensions": letters, **sizes, "divergence": loss})
            if self.best is None or loss < self.best[0]:
                self.best = loss, plan
        return self.known[plan]

    @torch.no_grad()
    def _measure(self, plan: PruningPlan) -> float:
        """Divergence from the network that is cut, a mean over the items of each term; nats."""
        source = self.scored.source_of(plan)
        cut = restore(compact(source, plan), source, plan, self.batches, reduce=self.reduce, ridge=RIDGE)
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
