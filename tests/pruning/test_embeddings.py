"""Projected embeddings: the model computes the same, and what is cut of them is what carries least."""

import pytest
import torch
from oracles import CLASSES, batches, build, compute, difference, ragged

from schubert_hf import PruningConfig, SchuBertForMaskedLM, SchuBertModel, compact
from schubert_hf.anatomy import embeddings
from schubert_hf.cost import ParameterCost
from schubert_hf.heads import masked_lm
from schubert_hf.pruning.budget import resolve_dimensions
from schubert_hf.pruning.embeddings import EmbeddingMoments, measure_embeddings, project_embeddings
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import EMBEDDINGS, DimensionsError, find_groups
from schubert_hf.shape import Shape, with_projection
from schubert_hf.training.outputs import Outputs


def moments_of(model):
    torch.manual_seed(4)
    e = model.config.embedding_size
    entries, gradients, *decoded = (torch.randn(n, 2 * n).double() for n in (e, 37, e, e))
    decoded = decoded if masked_lm(model) is not None else []
    return EmbeddingMoments(entries @ entries.mT, gradients @ gradients.mT, *(x @ x.mT for x in decoded))


def taught(model, some):
    """The objective whose probes are gradients of the token states in random directions."""
    return Outputs().taught_by(model, some[0], temperature=1.0, seed=0)(model)


@pytest.mark.parametrize("size", [None, 19])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_projected_model_computes_the_same(kind, size):
    model = build(kind, ragged(embedding_size=size))
    projected = project_embeddings(model, moments_of(model))
    assert Shape.of(projected.config) == Shape.of(with_projection(model.config))
    assert Shape.of(projected.config).embedding_size == (size or 37)
    assert difference(compute(projected), compute(model)) < 1e-12
    assert find_groups(projected.config, "e") == {EMBEDDINGS: size or 37}
    for ours, theirs in zip(embeddings(projected).tables, embeddings(model).tables, strict=True):
        assert ours.weight.data_ptr() != theirs.weight.data_ptr()


def test_moments_are_those_of_a_loop():
    model = build(SchuBertModel, ragged(embedding_size=19))
    some = batches(2)
    found = measure_embeddings(taught(model, some), some)
    parts, rows = embeddings(model), []
    parts.norm.register_forward_hook(lambda _m, args, _o: rows.append(args[0].detach()))
    for batch in some:
        model(**batch)
    z = torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(rows, some, strict=True)])
    z = (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True, unbiased=False) + parts.norm.eps).sqrt()
    torch.testing.assert_close(found.entries, z.mT @ z / len(z), rtol=1e-6, atol=1e-6)
    assert found.gradients.shape == (37, 37)
    assert found.decoded is None
    assert float(torch.linalg.eigvalsh(found.gradients).max()) > 0


def test_sorted_entries_carry_more_than_others():
    """Five directions stand out of noise, in any basis: the first eight sorted entries hold them, others do not."""
    model, some = build(SchuBertModel), batches(8)
    few = torch.randn(5, 37).double()
    for table in embeddings(model).tables:
        table.weight.data = torch.randn(len(table.weight), 5).double() @ few + torch.randn_like(table.weight) / 2
    projected = project_embeddings(model, measure_embeddings(taught(model, some), some))
    lost = []
    for kept in (range(8), range(8, 16)):
        plan = PruningPlan.from_kept(Shape.of(projected.config), {EMBEDDINGS: tuple(kept)})
        cut = restore(compact(projected, plan), projected, plan, some, ridge=1e-6)
        with torch.no_grad():
            ours, theirs = (embeddings(x).stream(input_ids=some[0]["input_ids"]) for x in (cut, model))
        lost.append(float((ours - theirs).square().sum() / (theirs - theirs.mean((0, 1))).square().sum()))
    assert 2 * lost[0] < lost[1]


def test_dimensions_with_and_without_embeddings():
    def of(model, dimensions="hfakve", **settings):
        return resolve_dimensions(PruningConfig(dimensions=dimensions, **settings).resolve(), model).dimensions

    assert of(build(SchuBertModel)) == of(build(SchuBertModel), "auto") == "hfakve"
    assert of(build(SchuBertModel), "auto", cost="flops") == "hfakv"
    assert of(build(SchuBertModel), target="1MFLOPs") == of(build(SchuBertModel), cost="latency") == "hfakv"
    projected = build(SchuBertForMaskedLM, ragged(embedding_size=19))
    assert of(projected, method="magnitude") == "hfakve"
    assert of(build(SchuBertForMaskedLM)) == of(projected, "auto") == "hfakve"
    assert of(build(SchuBertForMaskedLM), "auto") == "hfakv"
    assert of(build(SchuBertModel), "auto", method="schubert") == "hfakv"
    with pytest.raises(DimensionsError, match=r"`dimensions` has e, the embedding size, but .*, or leave e out"):
        of(build(SchuBertModel), method="schubert")


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_leaves_no_more_entries_than_channels(seed):
    """Whatever the scores: with the stream the embeddings shrink, and the cost of the plan is that of the model."""
    model = build(SchuBertModel, with_projection(ragged()))
    generator, cost = torch.Generator().manual_seed(seed), ParameterCost(model)
    groups = find_groups(model.config, "hfakve")
    scores = {group: torch.rand(units, generator=generator) for group, units in groups.items()}
    scores[EMBEDDINGS] += 0.5
    for share in (0.8, 0.5, 0.3):
        budget = share * model.num_parameters()
        plan = select(scores, model.config, cost, budget, multiple_of={"h": 4, "e": 3})
        assert plan.shape.embedding_size <= plan.shape.hidden_sizes[0]
        assert compact(model, plan).num_parameters() == cost(plan.shape) <= budget
