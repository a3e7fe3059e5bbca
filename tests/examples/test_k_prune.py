"""K-prune against explicit removal, finite differences, all thresholds, and least squares on stacked rows."""

import itertools

import pytest
import torch
from equal_layers import GROUPS, classifier, labelled, scale
from study.k_prune import (
    Knowledge,
    fit_weight,
    measure_knowledge,
    prune_with_k_prune,
    search_masks,
    tune_output,
)
from study.masks import Measured, Prices, Streams, keep_units, price_units, sublayer_of
from torch.nn.functional import kl_div, log_softmax

from schubert_hf.cost import BudgetError, FlopCost
from schubert_hf.evaluation.objectives import ClassificationObjective
from schubert_hf.pruning.units import Group
from schubert_hf.shape import Shape
from schubert_hf.training.objective import real_tokens


def measure(model, wanted, data):
    return measure_knowledge(ClassificationObjective(model), model, GROUPS, data, wanted, 2.0)


def test_representational_knowledge_is_what_removal_takes_from_the_stream():
    model, data = classifier(), labelled()
    wanted = [{"classification": model(**batch).logits.detach()} for batch in data]
    found = measure(model, wanted, data)
    for group, unit in ((Group("a", 0), 2), (Group("f", 1), 3)):
        removed, tokens, total = scale(classifier(), group, unit, 0.0), 0, 0.0
        for batch in data:
            ends = []
            for one in (model, removed):
                linear = sublayer_of(one, group).output
                hook = linear.register_forward_hook(lambda _m, _a, out, ends=ends: ends.append(out.detach()))
                one(**batch)
                hook.remove()
            real = real_tokens(batch)
            total += float((ends[0] - ends[1])[real].square().mean(-1).sum())
            tokens += int(real.sum())
        assert float(found[group].outputs[unit]) == pytest.approx(total / tokens)


def test_predictive_knowledge_is_the_slope_of_the_divergence():
    dense, data = classifier(), labelled(1)
    wanted = [{"classification": dense(**data[0]).logits.detach()}]
    cut = scale(classifier(), Group("f", 0), 1, 0.0)
    found = measure(cut, wanted, data)
    group, unit, step = Group("a", 1), 0, 1e-6

    def divergences(factor):
        logits = scale(scale(classifier(), Group("f", 0), 1, 0.0), group, unit, factor)(**data[0]).logits
        pair = (log_softmax(x / 2.0, dim=-1) for x in (logits, wanted[0]["classification"]))
        return 4.0 * kl_div(*pair, log_target=True, reduction="none").sum(-1).detach()

    slopes = (divergences(1 + step) - divergences(1 - step)) / (2 * step)
    assert torch.allclose(found[group].gradients[:, unit], slopes, atol=1e-6)
    assert float(slopes.abs().max()) > 1e-3


def test_knowledge_weighs_both_kinds_and_the_heads():
    found = Measured(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([1.0, 3.0]))
    # 1/2 * (4 + 0) / 2 + 0.5 * 1 and 1/2 * (0 + 16) / 2 + 0.5 * 3
    weigh = Knowledge(representation=0.5, heads=10.0)
    assert weigh.of(Group("f", 0), found).tolist() == [1.5, 5.5]
    assert weigh.of(Group("a", 0), found).tolist() == [15.0, 55.0]


def test_without_a_cut_no_prediction_has_changed():
    dense, data = classifier(), labelled()
    wanted = [{"classification": dense(**batch).logits.detach()} for batch in data]
    assert all(float(known.gradients.abs().max()) < 1e-6 for known in measure(dense, wanted, data).values())


@pytest.mark.parametrize("left", [0.0, 3.0, 9.5, 17.0, 100.0])
def test_search_takes_the_lowest_threshold_that_fits(left):
    torch.manual_seed(0)
    knowledge = {group: torch.rand(units) for group, units in zip(GROUPS, (2, 2, 4, 3), strict=True)}
    prices = Prices(head=5.0, filter=1.25, fixed=0.0)
    masks = search_masks(knowledge, prices, left)

    def above(threshold):
        return {group: values / prices.of(group) > threshold for group, values in knowledge.items()}

    def spent(kept):
        return sum(prices.of(group) * int(mask.sum()) for group, mask in kept.items())

    thresholds = sorted([-1.0, *(float(v / prices.of(g)) for g, values in knowledge.items() for v in values)])
    expected = next(kept for kept in map(above, thresholds) if spent(kept) <= left)
    assert {group: mask.tolist() for group, mask in masks.items()} == {g: m.tolist() for g, m in expected.items()}


def test_at_one_price_the_search_is_the_best_of_all_masks():
    torch.manual_seed(1)
    knowledge = {Group("a", 0): torch.rand(4), Group("f", 0): torch.rand(6)}
    masks = search_masks(knowledge, Prices(1.0, 1.0, 0.0), 4.0)
    values = torch.cat(list(knowledge.values()))
    best = max(float(values[list(chosen)].sum()) for chosen in itertools.combinations(range(10), 4))
    assert float(values[torch.cat(list(masks.values()))].sum()) == pytest.approx(best)


def test_weights_are_the_least_squares_of_the_rows():
    torch.manual_seed(0)
    x, t = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    expected = torch.linalg.lstsq(x, t).solution.mT
    assert torch.allclose(fit_weight([x[:4], x[4:]], [t[:4], t[4:]]), expected)
    few = fit_weight([x[:3]], [t[:3]])  # more entries than rows: of least norm
    assert torch.allclose(few, (torch.linalg.pinv(x[:3]) @ t[:3]).mT)


@pytest.mark.parametrize("percent", [75, 30])
def test_the_result_meets_the_budget_and_the_model_stays(percent):
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = FlopCost(model.config, seq_len=11)
    budget = cost(Shape.of(model.config)) * percent / 100
    smaller = prune_with_k_prune(ClassificationObjective(model), cost, budget, labelled())
    assert cost(Shape.of(smaller.config)) <= budget
    assert budget - cost(Shape.of(smaller.config)) < price_units(cost, Shape.of(model.config), budget).head
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_to_remove_gives_back_the_same_function():
    model, data = classifier(), labelled(6)
    cost = FlopCost(model.config, seq_len=11)
    whole = prune_with_k_prune(ClassificationObjective(model), cost, 2 * cost(Shape.of(model.config)), data)
    for batch in data:
        assert torch.allclose(whole(**batch).logits, model(**batch).logits, atol=1e-6)


def test_a_budget_below_everything_else_is_refused():
    model = classifier()
    with pytest.raises(BudgetError, match="without heads and filters"):
        prune_with_k_prune(ClassificationObjective(model), FlopCost(model.config), 1.0, labelled())


def test_a_layer_may_lose_all():
    model = classifier()
    smaller = keep_units(model, {Group("a", 0): torch.zeros(3, dtype=torch.bool)})
    assert smaller.config.head_counts == [0, 3]


def test_the_refit_brings_the_stream_nearest_to_the_dense_one():
    model, data = classifier(), labelled(6)
    group, keep = Group("f", 0), torch.tensor([True, True, False, True, False, True, True])
    cut = keep_units(model, {group: keep})
    with torch.no_grad():
        ours, theirs = Streams(cut, data), Streams(model, data)
        for streams, which in ((ours, cut), (theirs, model)):
            streams.advance(sublayer_of(which, Group("a", 0)))

        def distance():
            sums = zip(ours.sums(sublayer_of(cut, group)), theirs.sums(sublayer_of(model, group)), strict=True)
            return sum(float((a - b)[r].square().sum()) for (a, b), r in zip(sums, ours.real, strict=True))

        before, output = distance(), sublayer_of(cut, group).output
        tune_output(output, group, cut, model, ours, theirs)
        best = distance()
        assert best < 0.95 * before
        for direction in torch.randn(4, *output.weight.shape, dtype=torch.float64):
            kept = output.weight.clone()
            output.weight.add_(1e-3 * direction)
            assert distance() > best
            output.weight.copy_(kept)
