"""Kwon et al. 2022 against enumeration, normal equations written out, and removal itself."""

import itertools

import pytest
import torch
from equal_layers import GROUPS, classifier, labelled, scale
from oracles import batches, build
from study.kwon import fit_scales, prune_with_kwon, rearrange_mask, search_masks, tune_masks
from study.masks import Prices, keep_units, measure_units, price_units
from torch.nn.functional import cross_entropy

from schubert_hf import SchuBertForMaskedLM
from schubert_hf.anatomy import layers
from schubert_hf.cost import BudgetError, FlopCost
from schubert_hf.evaluation.objectives import ClassificationObjective
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import real_tokens


def loss_of(model):
    objective = ClassificationObjective(model)
    return lambda _, batch: objective(batch)["classification"]


@pytest.mark.parametrize("budget", [9.0, 14.5, 21.0, 100.0])
def test_search_is_the_best_of_all_masks(budget):
    torch.manual_seed(0)
    fisher = {group: torch.rand(units, dtype=torch.float64) for group, units in zip(GROUPS, (2, 2, 4, 3), strict=True)}
    prices = Prices(head=5.0, filter=1.25, fixed=4.0)
    masks = search_masks(fisher, prices, budget)
    values = torch.cat(list(fisher.values()))
    price = torch.tensor([5.0] * 4 + [1.25] * 7)

    def kept(mask):
        return float(values[mask].sum()) if float(price[mask].sum()) + prices.fixed <= budget else -1.0

    best = max(kept(torch.tensor(mask)) for mask in itertools.product([False, True], repeat=11))
    assert kept(torch.cat(list(masks.values()))) == pytest.approx(best, abs=1e-12)
    assert [len(mask) for mask in masks.values()] == [2, 2, 4, 3]


def test_search_below_what_is_always_there():
    with pytest.raises(BudgetError):
        search_masks({Group("a", 0): torch.ones(2, dtype=torch.float64)}, Prices(1.0, 0.0, 3.0), 2.0)


def test_units_that_make_up_for_each_other_go_together():
    # Units 0 and 1 undo each other, so both can go for nothing; 2 and 3 have less Fisher information each.
    gradients = torch.tensor([[2.0, -2.0, 1.0, 1.0], [-3.0, 3.0, 1.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([True, True, False, False])
    assert rearrange_mask(mask, gradients).tolist() == [True, True, False, False]  # no single swap helps
    gradients = torch.tensor([[2.0, -2.0, 1.0, 0.5], [-3.0, 3.0, 1.0, 0.5]], dtype=torch.float64)
    mask = torch.tensor([False, True, False, True])
    # As it is: (2 + 1)^2, (-3 + 1)^2, mean 6.5. Swapping 0 for 3: 1.5^2. Then 2 for 0: (2 + .5)^2 ... no gain.
    assert rearrange_mask(mask, gradients).tolist() == [True, True, False, False]
    mask = torch.tensor([False, True, True, False])
    assert rearrange_mask(mask, 10 * gradients[:, [0, 1, 2, 2]]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("seed", range(5))
def test_rearranging_never_loses_and_ends_where_its_steps_lead(seed):
    torch.manual_seed(seed)
    gradients, mask = torch.randn(6, 7, dtype=torch.float64), torch.rand(7) > 0.4

    def lost(kept):
        return float(gradients[:, ~kept].sum(1).square().mean())

    by_hand = mask.clone()
    for unit in (~mask).nonzero().flatten().tolist():
        swaps = [by_hand.clone() for _ in by_hand.nonzero()]
        for swap, other in zip(swaps, by_hand.nonzero().flatten().tolist(), strict=True):
            swap[unit], swap[other] = True, False
        best = min(swaps, key=lost, default=by_hand)
        by_hand = best if lost(best) < lost(by_hand) else by_hand
    found = rearrange_mask(mask, gradients)
    assert found.tolist() == by_hand.tolist()
    assert lost(found) <= lost(mask)


def test_gradients_of_each_example_are_those_of_finite_differences():
    model, batch = classifier(), labelled(1)[0]
    found = measure_units(model, GROUPS, [batch], loss_of(model))
    step = 1e-6
    for group, unit in ((Group("a", 0), 1), (Group("f", 1), 4)):
        losses = []
        for sign in (1, -1):
            moved = scale(classifier(), group, unit, 1 + sign * step)
            rows = [{name: value[n : n + 1] for name, value in batch.items()} for n in range(4)]
            losses.append(torch.stack([cross_entropy(moved(**row).logits, row["labels"]).detach() for row in rows]))
        expected = (losses[0] - losses[1]) / (2 * step)
        assert torch.allclose(found[group].gradients[:, unit], expected, atol=1e-6)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_scales_solve_the_normal_equations():
    torch.manual_seed(0)
    x, b, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((9, 6), (9, 5), (5, 6)))
    # Column u of A: what unit u, two entries, adds in all tokens and channels.
    a = torch.stack([(x[:, u : u + 2] @ weight[:, u : u + 2].mT).flatten() for u in (0, 2, 4)], dim=1)
    damped = torch.cat([a, 0.5 * torch.eye(3, dtype=torch.float64)])
    right = torch.cat([b.flatten(), 0.5 * torch.ones(3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(damped, right[:, None]).solution[:, 0]
    halves = ([x[:4], x[4:]], [b[:4], b[4:]])
    assert torch.allclose(fit_scales(*halves, weight, 3, 0.5), expected)


def test_tuning_brings_the_streams_together():
    dense, data = classifier(), batches()
    keep = torch.tensor([True, False, True, True, False, True, True])
    cut = keep_units(dense, {Group("f", 0): keep, Group("a", 1): torch.tensor([True, False, True])})

    def distance(model):
        total = 0.0
        for batch in data:
            ends = []
            for which in (model, dense):
                norm = layers(which)[0].filters.norm
                hook = norm.register_forward_pre_hook(lambda _m, args, ends=ends: ends.append(args[0]))
                which(**batch)
                hook.remove()
            total += float((ends[0] - ends[1])[real_tokens(batch)].square().sum())
        return total

    with torch.no_grad():
        before = distance(cut)
        tune_masks(cut, dense, data)
        assert distance(cut) < before


def test_a_scale_beyond_the_limit_ends_the_tuning():
    dense, data = classifier(), batches()
    cut = keep_units(dense, {Group("f", 0): torch.tensor([True] + [False] * 6)})
    weights = [layer.filters.output.weight.clone() for layer in layers(cut)]
    tune_masks(cut, dense, data, limit=0.5)
    assert all(torch.equal(layer.filters.output.weight, old) for layer, old in zip(layers(cut), weights, strict=True))


@pytest.mark.parametrize("percent", [75, 30])
def test_the_result_meets_the_budget_and_the_model_stays(percent):
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = FlopCost(model.config, seq_len=11)
    budget = cost(Shape.of(model.config)) * percent / 100
    smaller = prune_with_kwon(ClassificationObjective(model), cost, budget, labelled())
    prices = price_units(cost, Shape.of(model.config), budget)
    assert budget - prices.filter < cost(Shape.of(smaller.config)) <= budget
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sum(find_groups(smaller.config, "f").values()) < 14


def test_unequal_layers_have_no_one_price():
    model = build(SchuBertForMaskedLM)
    with pytest.raises(ValueError, match="equal layers"):
        price_units(FlopCost(model.config), Shape.of(model.config), 1e12)
