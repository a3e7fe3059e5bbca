"""Selection by its promises: never above the budget, less than one step below it, widths that are multiples."""

import dataclasses
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import parameter_cost

from schubert_hf import SchuBertConfig
from schubert_hf.cost import BudgetError
from schubert_hf.pruning.selection import (
    check_smallest,
    count_units,
    plan_steps,
    select,
    shape_without,
    smallest_shape,
)
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.shape import DIMENSIONS, Shape

promise = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def models(draw):
    """A config of random widths, uneven ones and empty sublayers included."""
    layers = draw(st.integers(1, 3))

    def sizes(least, most):
        return draw(st.lists(st.integers(least, most), min_size=layers, max_size=layers))

    even = draw(st.booleans())
    return SchuBertConfig(
        hidden_sizes=[draw(st.integers(1, 30))] * layers if even else sizes(1, 30),
        filter_sizes=sizes(0, 40),
        head_counts=sizes(0, 4),
        key_query_sizes=sizes(1, 9),
        value_sizes=sizes(1, 9),
        vocab_size=draw(st.integers(1, 60)),
        max_position_embeddings=8,
    )


@st.composite
def problems(draw):
    """(scores, config, multiples) for a random subset of dimensions; scores often tie."""
    config = draw(models())
    letters = "hfakvl" if len(set(config.hidden_sizes)) == 1 and len(config.hidden_sizes) > 1 else "hfakv"
    dimensions = "".join(draw(st.sets(st.sampled_from(letters), min_size=1)))
    multiples = draw(st.dictionaries(st.sampled_from("hfakv"), st.integers(1, 9)))
    seed = draw(st.integers(0, 999))
    levels = draw(st.sampled_from([2, 5, 1000]))
    generator = torch.Generator().manual_seed(seed)
    scores = {
        group: torch.randint(levels, (units,), generator=generator) / 10
        for group, units in find_groups(config, dimensions).items()
    }
    return scores, config, multiples


def stretches(group, units, config):
    """Bounds between which the channels occur in the same layers; for other groups the whole group."""
    return sorted({0, *config.hidden_sizes}) if group.dimension == "h" else [0, units]


def even(size, layers=1):
    """A BERT with two heads and as many filters as channels."""
    return SchuBertConfig(
        hidden_size=size, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=size, vocab_size=9
    )


def last_step(gone, units, multiple, may_empty):
    """How many units the step that was taken last has, where `gone` of `units` went."""
    first = units % multiple or multiple
    sizes = [first] + [multiple] * ((units - first) // multiple - (0 if may_empty else 1))
    total = 0
    for size in sizes:
        total += size
        if total == gone:
            return size
    raise AssertionError(f"{gone} of {units} units are no whole steps of {multiple}")


def check_layers(plan, scores, config, cost, budget):
    """One stays; none that went scores above one that stayed; given back, none of those that went would fit."""
    gone = [layer for layer in range(len(config.hidden_sizes)) if layer not in plan.layers]
    assert plan.layers
    if not gone:
        return
    worth = [float(scores[Group("l", layer)]) for layer in range(len(config.hidden_sizes))]
    assert max(worth) in [worth[layer] for layer in plan.layers]
    for layer in gone:
        kept = tuple(sorted({*plan.layers, layer}))
        assert cost(dataclasses.replace(plan, layers=kept).shape) > budget


@promise
@given(problems(), st.floats(0, 1))
def test_budget_and_multiples(problem, where):
    scores, config, multiples = problem
    cost, source = parameter_cost(config, "SchuBertForPreTraining"), Shape.of(config)
    smallest = cost(shape_without(source, count_units(plan_steps(scores, source, multiples))))
    budget = smallest + where * (cost(source) - smallest)
    plan = select(scores, config, cost, budget, multiple_of=multiples)
    assert cost(plan.shape) <= budget
    assert plan == select(scores, config, cost, budget, multiple_of=multiples)

    check_layers(plan, scores, config, cost, budget)
    for group, score in scores.items():
        if group.dimension == "l" or (group.layer is not None and group.layer not in plan.layers):
            continue
        if group.dimension in "kv" and not plan.heads[group.layer]:
            continue  # keys and values of no head
        field = {"h": "hidden", "f": "filters", "a": "heads", "k": "key_query", "v": "value"}[group.dimension]
        kept = getattr(plan, field) if group.layer is None else getattr(plan, field)[group.layer]
        kept = set(kept[0] if group.dimension in "kv" else kept)
        multiple = multiples.get(group.dimension, 1)
        for start, end in pairwise(stretches(group, len(score), config)):
            inside = [n for n in range(start, end) if n in kept]
            gone = [n for n in range(start, end) if n not in kept]
            # Whole, or a multiple; at least one of them, except of filters, heads, and channels that a narrower layer
            # lacks.
            may_empty = start > 0 or group.dimension in "fa"
            assert not gone or len(inside) % multiple == 0
            assert may_empty or len(inside) >= min(multiple, end)
            if not gone:
                continue
            assert not inside or max(score[n] for n in gone) <= min(score[n] for n in inside)
            # Given back one step it would not fit.
            step = last_step(len(gone), end - start, multiple, may_empty=may_empty)
            lists = plan.shape.lists()
            widths = lists[DIMENSIONS[group.dimension]]
            for place, layer in enumerate(plan.layers):
                if layer == group.layer or (group.layer is None and source.hidden_sizes[layer] > start):
                    widths[place] += step
            assert cost(Shape(**{name: tuple(sizes) for name, sizes in lists.items()})) > budget


@promise
@given(problems())
def test_what_is_not_reachable_is_refused_and_what_is_named_is_reachable(problem):
    scores, config, multiples = problem
    cost, source = parameter_cost(config, "SchuBertForMaskedLM"), Shape.of(config)
    steps = plan_steps(scores, source, multiples)
    everything = shape_without(source, count_units(steps))
    with pytest.raises(BudgetError, match="the smallest that removing") as caught:
        select(scores, config, cost, cost(everything) - 1, multiple_of=multiples)
    named = float(re.search(r"is below ([\d_]+)", str(caught.value))[1].replace("_", ""))
    plan = select(scores, config, cost, named, multiple_of=multiples)
    assert cost(plan.shape) == cost(everything) == named


def count(scores):
    return {group: len(score) for group, score in scores.items()}


def least_widths(source, groups, multiples):
    """No filters and no heads; of channels, keys and values one multiple, or the whole of a smaller group."""
    lists = source.lists()
    for dimension, layer in groups:
        sizes, least = lists[DIMENSIONS[dimension]], multiples.get(dimension, 1)
        if layer is None:  # the narrowest layer keeps as much, and no other more
            sizes[:] = [min(least, *sizes)] * len(sizes)
        else:
            sizes[layer] = 0 if dimension in "fa" else min(least, sizes[layer])
    return Shape(**{name: tuple(sizes) for name, sizes in lists.items()})


@promise
@given(problems())
def test_what_is_said_before_there_are_scores_can_be_kept(problem):
    """Whatever the scores: what `check_smallest` lets pass, `select` reaches."""
    scores, config, multiples = problem
    cost = parameter_cost(config, "SchuBertForMaskedLM")
    smallest = smallest_shape(count(scores), config, cost, multiples)
    with pytest.raises(BudgetError) as caught:
        check_smallest(smallest, scores, cost, 1)
    named = float(re.search(r"is below ([\d_]+)", str(caught.value))[1].replace("_", ""))
    check_smallest(smallest, scores, cost, named)
    assert named == cost(smallest)
    select(scores, config, cost, named, multiple_of=multiples)
    if not any(group.dimension == "l" for group in scores):
        assert smallest == least_widths(Shape.of(config), scores, multiples)


@promise
@given(problems())
def test_steps_leave_each_group_in_order_and_score(problem):
    scores, config, multiples = problem
    steps = plan_steps(scores, Shape.of(config), multiples)
    assert all(one.score <= other.score for one, other in pairwise(steps))
    for queue in {step.queue for step in steps}:
        own = [step for step in steps if step.queue is queue]
        worth = [float(scores[queue.group][list(step.units)].double().mean()) for step in own]
        assert worth == sorted(worth) or all(abs(a - b) < 1e-9 for a, b in zip(worth, sorted(worth), strict=True))


def test_equals_go_by_group_and_index():
    config = even(6, layers=2)
    scores = {group: torch.ones(units) for group, units in find_groups(config, "fk").items()}
    steps = plan_steps(scores, Shape.of(config), {})
    assert [str(step.queue.group) for step in steps] == ["f0"] * 6 + ["f1"] * 6 + ["k0"] * 2 + ["k1"] * 2
    assert [step.units for step in steps[:5]] == [(0,), (1,), (2,), (3,), (4,)]


def test_a_step_is_worth_the_mean_of_its_units():
    """Four cheap filters beat one cheap head only as far as their mean goes."""
    config = even(8)
    scores = {Group("f", 0): torch.tensor([0.1, 0.1, 0.1, 0.9, 5, 5, 5, 5]), Group("a", 0): torch.tensor([0.2, 9])}
    steps = plan_steps(scores, Shape.of(config), {"f": 4})
    assert [step.units for step in steps] == [(0,), (0, 1, 2, 3), (4, 5, 6, 7), (1,)]
    assert [step.score for step in steps] == [pytest.approx(score) for score in (0.2, 0.3, 5, 9)]


def test_smaller_steps_are_put_back():
    """Removing a head overshoots; what the filters had given before it comes back."""
    config = even(64)
    cost = parameter_cost(config, "SchuBertModel")
    size = cost(Shape.of(config))
    scores = {Group("f", 0): torch.full((64,), 0.1), Group("a", 0): torch.tensor([0.2, 9.0])}
    scores[Group("f", 0)][40:] = 1.0
    head = size - cost(Shape.of(config).shrink("a", 0, 1))
    plan = select(scores, config, cost, size - head)
    assert plan.heads == ((1,),)
    assert len(plan.filters[0]) == 64


def test_a_budget_that_is_met_already_keeps_everything():
    config = even(8, layers=2)
    cost = parameter_cost(config, "SchuBertModel")
    scores = {group: torch.rand(units) for group, units in find_groups(config, "hfakv").items()}
    assert select(scores, config, cost, cost(Shape.of(config))).shape == Shape.of(config)


def test_scores_that_are_no_numbers_are_refused():
    config = even(8)
    cost = parameter_cost(config, "SchuBertModel")
    with pytest.raises(ValueError, match="importance of group `f0` is not finite"):
        select({Group("f", 0): torch.full((8,), float("nan"))}, config, cost, cost(Shape.of(config)) - 1)


def test_bert_base_in_single_units():
    """39,312 units, one at a time, to 66 million parameters: exact to less than a filter."""
    config = SchuBertConfig()
    cost = parameter_cost(config, "SchuBertForPreTraining")
    generator = torch.Generator().manual_seed(0)
    scores = {group: torch.rand(n, generator=generator) for group, n in find_groups(config, "hfakv").items()}
    check_smallest(smallest_shape(count(scores), config, cost, {}), scores, cost, 66e6)
    shape = select(scores, config, cost, 66e6).shape
    assert 66e6 - 2 * shape.hidden_sizes[0] - 1 < cost(shape) <= 66e6
