"""The transform of a masked-LM head: what another head of its form gives is found again, however the tokens come."""

import copy

import pytest
import torch
from oracles import batches, build, ragged

from schubert_hf import SchuBertForMaskedLM, compact
from schubert_hf.heads import masked_lm
from schubert_hf.pruning.decoding import fit_transform
from schubert_hf.pruning.embeddings import measure_embeddings, project_embeddings
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.units import EMBEDDINGS
from schubert_hf.shape import Shape
from schubert_hf.training.objective import PretrainingObjective


@pytest.fixture
def head():
    return masked_lm(build(SchuBertForMaskedLM, ragged(embedding_size=11)))


def lack(head, inputs, targets):
    """Mean squared difference of logits, less what is the same for all words."""
    weight = head.decoder.weight - head.decoder.weight.mean(0)
    return float(((head.decoded(inputs) - targets) @ weight.mT).square().mean().detach())


def some_states(number=600):
    torch.manual_seed(6)
    return torch.randn(number, 43).double() @ torch.randn(43, 43).double() / 5


def test_a_head_of_this_form_is_found(head):
    inputs, other = some_states(), copy.deepcopy(head)
    targets = head.decoded(inputs).detach()
    with torch.no_grad():
        fit_transform(other, [inputs], [targets], steps=0)
        linear = lack(other, inputs, targets)
        fit_transform(other, [inputs], [targets])
    nothing = lack(head, inputs, targets.mean(0))
    assert linear < 0.5 * nothing
    assert lack(other, inputs, targets) < 0.2 * linear


@torch.no_grad()
def test_it_does_not_matter_how_tokens_are_spread(head):
    """Two processes that see a half each, whose sums are those of both."""
    inputs, halves = some_states(), (copy.deepcopy(head), copy.deepcopy(head))
    targets = head.decoded(inputs.flip(0))
    fit_transform(halves[0], [inputs], [targets], steps=5)
    fit_transform(halves[1], [inputs[:250], inputs[250:]], [targets[:250], targets[250:]], steps=5)
    one, two = (other.decoded(inputs) for other in halves)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_data_that_shows_nothing_leaves_finite_weights(head):
    fit_transform(head, [some_states(1)], [torch.ones(1, 11).double()])
    assert all(bool(torch.isfinite(x).all()) for x in (*head.transform.parameters(), *head.norm.parameters()))


def test_a_language_model_without_some_entries_comes_near_the_dense_logits():
    """Ten directions are all that words differ in; the sorted entries hold them, and the transform writes them."""
    model, everything = build(SchuBertForMaskedLM), batches(45)
    data, held_out = everything[:40], everything[40:]
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words.copy_(torch.randn(99, 10).double() @ torch.randn(10, 37).double() / 5)
    labelled = [{**batch, "labels": batch["input_ids"]} for batch in data[:8]]
    moments = measure_embeddings(PretrainingObjective(model), labelled)
    assert moments.decoded.shape == moments.decoder_gradients.shape == (37, 37)
    assert float(torch.linalg.eigvalsh(moments.decoded).min()) > -1e-9
    projected = project_embeddings(model, moments)
    plan = PruningPlan.from_kept(Shape.of(projected.config), {EMBEDDINGS: tuple(range(16))})

    @torch.no_grad()
    def distance(cut):
        pairs = [(cut(**batch).logits, model(**batch).logits) for batch in held_out]
        return sum(float((a - b - (a - b).mean(-1, keepdim=True)).square().mean()) for a, b in pairs)

    cut = compact(projected, plan)
    before = distance(cut)
    restored = restore(cut, projected, plan, data)
    assert restored.cls.predictions.decoder.weight is restored.get_input_embeddings().weight
    assert not any(module._forward_hooks for module in restored.modules())
    assert distance(restored) < 0.5 * before
