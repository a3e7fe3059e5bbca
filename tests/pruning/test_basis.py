"""The change of basis: the same function, sorted, and the best that so few entries can do."""

import pytest
import torch
from oracles import CLASSES, batches, build, compute, difference, ragged

from schubert_hf import SchuBertForMaskedLM, SchuBertForPreTraining
from schubert_hf.pruning.basis import change_basis
from schubert_hf.pruning.moments import measure_heads

CLOSE = 1e-10


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_function_stays(kind, measured):
    model = build(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = change_basis(model, measure_heads(model, batches()) if measured else None)
    assert difference(compute(changed), compute(model)) < CLOSE
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    query = "encoder.layer.0.attention.self.query.weight"
    own = {name.removeprefix("bert."): tensor for name, tensor in changed.state_dict().items()}
    assert not torch.allclose(own[query], {n.removeprefix("bert."): t for n, t in before.items()}[query])


@pytest.mark.parametrize("measured", [False, True])
def test_hollow_layers_and_heads_wider_than_their_layer(measured):
    config = ragged(head_counts=[3, 0, 1], key_query_sizes=[40, 7, 45], value_sizes=[39, 4, 44])
    model = build(SchuBertForMaskedLM, config)
    changed = change_basis(model, measure_heads(model, batches()) if measured else None)
    assert difference(compute(changed), compute(model)) < CLOSE


def test_single_precision():
    model = build(SchuBertForPreTraining).float()
    assert difference(compute(change_basis(model)), compute(model)) < 1e-4


def test_entries_are_sorted_and_the_first_ones_are_the_best():
    """Of q . k over white inputs: the error of the first n is that of the best product of rank n."""
    model = build(SchuBertForMaskedLM)
    changed = change_basis(model)
    for layer in range(3):
        was, now = (m.bert.encoder.layer[layer].attention.self for m in (model, changed))
        heads, size = was.num_attention_heads, was.key_query_size
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            query = torch.cat([was.query.weight[rows], was.query.bias[rows, None]], 1).detach()
            product = query.mT @ was.key.weight[rows].detach()
            singular = torch.linalg.svdvals(product)
            new_query = torch.cat([now.query.weight[rows], now.query.bias[rows, None]], 1).detach()
            for kept in (1, size // 2, size):
                error = (product - new_query[:kept].mT @ now.key.weight[rows][:kept].detach()).norm()
                assert float(error) == pytest.approx(float(singular[kept:].norm()), abs=1e-9)


def test_measured_moments_are_those_of_real_tokens():
    """Other padding, other batches of the same sequences: the same moments."""
    model = build(SchuBertForMaskedLM)
    torch.manual_seed(3)
    ids = torch.randint(5, 99, (2, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    padded = {"input_ids": torch.cat([ids, torch.zeros(2, 3, dtype=torch.long)], 1)}
    padded["attention_mask"] = torch.cat([mask, torch.zeros(2, 3, dtype=torch.long)], 1)
    apart = [{"input_ids": ids[:1]}, {"input_ids": ids[1:, :4]}]
    together = measure_heads(model, [{"input_ids": ids, "attention_mask": mask}])
    for other in (measure_heads(model, [padded]), measure_heads(model, apart)):
        for one, two in zip(together, other, strict=True):
            for name in ("query", "key", "value", "value_mean"):
                torch.testing.assert_close(getattr(one, name), getattr(two, name))


def test_with_measured_moments_fewer_entries_lose_less_on_that_text():
    model, data = build(SchuBertForMaskedLM), batches(6)
    errors = []
    for moments in (None, measure_heads(model, data)):
        changed = change_basis(model, moments)
        attention = changed.bert.encoder.layer[0].attention.self
        size = attention.key_query_size
        with torch.no_grad():
            for head in range(attention.num_attention_heads):
                attention.query.weight[head * size + 2 : (head + 1) * size] = 0
                attention.query.bias[head * size + 2 : (head + 1) * size] = 0
            pairs = [(changed(**batch).logits, model(**batch).logits) for batch in data]
        errors.append(sum(float((ours - theirs).square().mean()) for ours, theirs in pairs))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("measured", [False, True])
def test_the_function_stays_where_weights_are_degenerate(measured):
    model = build(SchuBertForMaskedLM)
    with torch.no_grad():
        first, second, third = (layer.attention for layer in model.bert.encoder.layer)
        first.self.key.weight[1] = first.self.key.weight[0]  # of lower rank
        first.self.query.bias[:5] = 0
        first.self.query.weight[:5] = 0  # a head that looks at nothing
        second.self.value.weight[:4] = 0  # a head that says nothing but its bias
        third.output.dense.weight.zero_()  # heads that nobody hears
    changed = change_basis(model, measure_heads(model, batches()) if measured else None)
    assert all(bool(parameter.isfinite().all()) for parameter in changed.parameters())
    assert difference(compute(changed), compute(model)) < 1e-11
