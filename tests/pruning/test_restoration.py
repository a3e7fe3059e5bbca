"""Restoration where the answer is known: what went can be said by what stays."""

import copy

import pytest
import torch
from oracles import batches, build, compute, difference, plan_without, ragged

from schubert_hf import SchuBertForMaskedLM, SchuBertForPreTraining, SchuBertForSequenceClassification, compact
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.units import Group
from schubert_hf.shape import Shape

EXACT = 1e-10  # a ridge that holds nothing
DATA = 40


def distance(model, dense, data):
    with torch.no_grad():
        pairs = [(model(**batch).logits, dense(**batch).logits) for batch in data]
    return sum(float((a - b).square().mean()) for a, b in pairs)


def test_a_plan_that_keeps_everything_changes_nothing():
    dense = build(SchuBertForPreTraining)
    plan = PruningPlan.from_kept(Shape.of(dense.config), {})
    same = restore(compact(dense, plan), dense, plan, batches())
    assert difference(compute(same), compute(dense)) < 1e-4


def test_filters_that_others_can_replace_are_replaced():
    dense = build(SchuBertForMaskedLM)
    block = dense.bert.encoder.layer[1]
    with torch.no_grad():
        block.intermediate.dense.weight[4], block.intermediate.dense.bias[4] = 0, 0.7  # always the same
        block.intermediate.dense.weight[9] = block.intermediate.dense.weight[2]
        block.intermediate.dense.bias[9] = block.intermediate.dense.bias[2]
    plan = plan_without(dense.config, {Group("f", 1): [4, 9]})
    cut = compact(dense, plan)
    data = batches(DATA)
    assert distance(cut, dense, data) > 1e-2
    assert distance(restore(cut, dense, plan, data, ridge=EXACT), dense, batches(2)) < 1e-9


def test_values_that_others_can_replace_are_replaced():
    dense = build(SchuBertForMaskedLM)
    attention = dense.bert.encoder.layer[0].attention.self  # 3 heads of 9 values
    with torch.no_grad():
        for head in range(3):
            mixed = attention.value.weight[9 * head : 9 * head + 4]
            attention.value.weight[9 * head + 8] = mixed.sum(0)
    plan = plan_without(dense.config, {Group("v", 0): [8]})
    cut = compact(dense, plan)
    data = batches(DATA)
    assert distance(cut, dense, data) > 1e-2
    assert distance(restore(cut, dense, plan, data, ridge=EXACT), dense, batches(2)) < 1e-9


@pytest.mark.parametrize(
    "removed",
    [
        {Group("f", 0): list(range(20)), Group("f", 2): list(range(25))},
        {Group("a", 0): [1], Group("v", 1): [0], Group("k", 0): [1, 2]},
        {Group("h", None): [1, 5, 9, 30]},
        {Group("a", 1): [0, 1], Group("f", 1): list(range(29))},
        {Group("l", 1): [0]},
    ],
    ids=str,
)
def test_it_comes_nearer_on_text_that_it_has_not_seen(removed):
    layers = any(group.dimension == "l" for group in removed)
    dense = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]) if layers else None)
    plan = plan_without(dense.config, removed)
    cut = compact(dense, plan)
    everything = batches(DATA + 5)
    data, held_out = everything[:DATA], everything[DATA:]
    before = distance(cut, dense, held_out)
    restored = restore(cut, dense, plan, data)
    assert Shape.of(restored.config) == plan.shape
    assert distance(restored, dense, held_out) < 0.9 * before


def test_models_without_a_language_head():
    dense = build(SchuBertForSequenceClassification)
    plan = plan_without(dense.config, {Group("f", 0): list(range(20)), Group("h", None): [3]})
    cut, data = compact(dense, plan), batches(DATA)
    before = distance(cut, dense, data)
    assert distance(restore(cut, dense, plan, data), dense, data) < before


def test_the_dense_model_and_the_text_stay_and_padding_does_not_count():
    dense = build(SchuBertForMaskedLM).train()
    plan = plan_without(dense.config, {Group("f", 0): [1, 2], Group("h", None): [0]})
    state, data = copy.deepcopy(dense.state_dict()), batches()
    restored = restore(compact(dense, plan), dense, plan, data)
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    assert all(torch.equal(batch["input_ids"], own["input_ids"]) for batch, own in zip(data, batches(), strict=True))
    assert dense.training
    assert not restored.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in restored.modules())

    def pad(tensor):
        return torch.cat([tensor, torch.zeros_like(tensor[:, :4])], 1)

    padded = [{name: pad(value) for name, value in batch.items()} for batch in data]
    again = restore(compact(dense, plan), dense, plan, padded)
    assert difference(compute(again), compute(restored)) < 1e-6


def test_data_that_shows_nothing_leaves_finite_weights():
    """One sequence of one word: no variance anywhere."""
    dense = build(SchuBertForMaskedLM)
    plan = plan_without(dense.config, {Group("f", 0): [1], Group("h", None): [2]})
    restored = restore(compact(dense, plan), dense, plan, [{"input_ids": torch.full((1, 1), 7)}])
    assert all(bool(torch.isfinite(parameter).all()) for parameter in restored.parameters())
