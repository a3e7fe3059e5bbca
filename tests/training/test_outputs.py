"""What matching the dense model costs, by its definition; and the directions that stand for its curvature."""

import math

import pytest
import torch
from oracles import batches, build, ragged
from torch.nn.functional import cosine_similarity, normalize

from schubert_hf import (
    SchuBertForMaskedLM,
    SchuBertForMultipleChoice,
    SchuBertForNextSentencePrediction,
    SchuBertForPreTraining,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
    SchuBertForTokenClassification,
    SchuBertModel,
)
from schubert_hf.training.differences import Bernoulli, Categorical, Projected, Squared
from schubert_hf.training.objective import ObjectiveError
from schubert_hf.training.outputs import Outputs

EVEN = {"hidden_sizes": [36, 36, 36]}
KINDS = {
    "states": (SchuBertModel, {}),
    "words": (SchuBertForMaskedLM, {}),
    "pretraining": (SchuBertForPreTraining, {}),
    "next": (SchuBertForNextSentencePrediction, {}),
    "labels": (SchuBertForSequenceClassification, {"num_labels": 3}),
    "score": (SchuBertForSequenceClassification, {"num_labels": 1}),
    "many": (SchuBertForSequenceClassification, {"num_labels": 3, "problem_type": "multi_label_classification"}),
    "choices": (SchuBertForMultipleChoice, {}),
    "tags": (SchuBertForTokenClassification, {"num_labels": 5}),
    "answers": (SchuBertForQuestionAnswering, {}),
}


def embed(states, mask):
    weights = mask.unsqueeze(-1).to(states)
    return normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def data_for(kind, number=3):
    if kind != "choices":
        return batches(number)
    return [{name: x.view(2, 2, -1) for name, x in batch.items()} for batch in batches(number)]


def pair(kind, **options):
    """A dense model, another one of its kind, and what makes their objective."""
    head, fields = KINDS.get(kind, KINDS["states"])
    dense, other = build(head, ragged(**EVEN, **fields)), build(head, ragged(**EVEN, **fields))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    recipe = Outputs(embed=embed if kind == "embedding" else None, **options)
    sample = data_for(kind, 1)[0]
    return dense, other, recipe.taught_by(dense, sample, temperature=1.0, seed=3)


@pytest.mark.parametrize("kind", [*KINDS, "embedding"])
def test_the_dense_model_is_at_no_distance_from_itself_and_no_other_is(kind):
    dense, other, make = pair(kind)
    (batch,) = data_for(kind, 1)
    own, apart = make(dense).train(), make(other).train()  # dropout rests
    assert set(own.terms) <= set(own.count(batch))
    with torch.no_grad():
        ours, theirs = own(batch), apart(batch)
    for term in own.terms:
        assert float(ours[term]) == pytest.approx(0, abs=1e-9)
        assert float(theirs[term]) > 1e-6
    assert (len(ours) > len(own.terms)) == (kind not in ("states", "score", "embedding"))
    for term in set(ours) - set(own.terms):
        assert own.count(batch)[term.removesuffix("_correct")] == ours[term] >= theirs[term]
    assert {id(x) for x in apart.parameters()} == {id(x) for x in other.parameters()}


def test_distances_by_definition():
    dense, other, make = pair("states")
    (batch,) = data_for("states", 1)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = (model(**batch).last_hidden_state for model in (other, dense))
        x, t = ours[real], theirs[real]
        states = (x - t).square().sum() / t.var(0, correction=0).sum()
    assert float(make(other)(batch)["states"].detach()) == pytest.approx(float(states), rel=1e-6)

    dense, other, make = pair("embedding")
    e, t = embed(ours, batch["attention_mask"]), embed(theirs, batch["attention_mask"])
    sums = make(other)(batch)
    assert float(sums["embedding"].detach()) == pytest.approx(float((1 - cosine_similarity(e, t)).sum()), rel=1e-5)
    alike = (t @ t.mT)[~torch.eye(len(t), dtype=torch.bool)]
    wanted = ((e - t) @ t.mT).square().mean(-1).sum() / alike.var(correction=0)
    assert float(sums["similarity"].detach()) == pytest.approx(float(wanted), rel=1e-5)
    assert float(sums["states"].detach()) == pytest.approx(float(states), rel=1e-5)


def test_embeddings_of_fewer_channels_are_made_of_the_best_prediction_of_all():
    dense, _, make = pair("embedding")
    (batch,) = data_for("embedding", 1)
    kept = [n for n in range(36) if n % 4]
    narrow = make.narrowed([*range(30)]).narrowed([n for n in range(30) if n % 4])
    assert narrow.channels == tuple(kept[: len(narrow.channels)])
    small = build(SchuBertModel, ragged(hidden_sizes=[len(narrow.channels)] * 3))
    weight, bias = narrow(small).lift
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        states = dense(**batch).last_hidden_state[real]
    x = states[:, list(narrow.channels)]
    torch.testing.assert_close((x @ weight.mT + bias)[:, list(narrow.channels)], x)
    gone = [n for n in range(36) if n not in narrow.channels]
    error = (x @ weight.mT + bias - states)[:, gone].square().sum()
    assert error < 0.8 * (states - states.mean(0))[:, gone].square().sum()
    assert float(narrow(small)(batch)["embedding"].detach()) > 0
    assert make(dense).lift is None
    assert make.narrowed(range(36))(dense).lift is None


def test_states_are_compared_in_the_channels_that_stay():
    dense, _, make = pair("states")
    (batch,) = data_for("states", 1)
    small = build(SchuBertModel, ragged(hidden_sizes=[3] * 3))
    objective = make.narrowed([0, 7, 30])(small)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        t = dense(**batch).last_hidden_state[real][:, [0, 7, 30]]
        x = small(**batch).last_hidden_state[real]
    wanted = (x - t).square().sum() / t.var(0, correction=0).sum()
    assert float(objective(batch)["states"].detach()) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize(
    "difference",
    [Squared(0.7), Projected(torch.randn(5, 4).double(), 0.3), Categorical(1.7), Bernoulli(1.7)],
    ids=lambda difference: type(difference).__name__,
)
def test_directions_have_the_curvature_of_their_distance_as_covariance(difference):
    wanted = torch.randn(1, 4, dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(lambda x: difference.distance(x[None], wanted), wanted[0])
    count = difference.signs(4)
    every = torch.tensor([[1.0 if n >> bit & 1 else -1.0 for bit in range(count)] for n in range(2**count)])
    r = difference.direction(wanted.expand(len(every), 4), every.double())
    torch.testing.assert_close(r.mT @ r / len(every), curvature)


@pytest.mark.parametrize("kind", ["states", "embedding", "answers", "choices"])
def test_directions_are_an_examples_own(kind):
    """However batches are cut up and padded."""
    dense, _, make = pair(kind, draws=2)
    objective, (batch,) = make(dense).eval(), data_for(kind, 1)
    whole = [float(probe.detach()) for probe in objective.probes(batch)]
    assert len(whole) == 2
    assert whole[0] != whole[1]
    parts = [{name: x[rows] for name, x in batch.items()} for rows in (slice(0, 1), slice(1, None))]
    parts[1] = {name: torch.nn.functional.pad(x, (0, 3)) for name, x in parts[1].items()}
    split = [
        sum(values) for values in zip(*([float(p.detach()) for p in objective.probes(x)] for x in parts), strict=True)
    ]
    assert split == pytest.approx(whole, rel=1e-5)
    assert [float(probe.detach()) for probe in objective.probes(batch)] == whole


def test_bad_models_are_refused():
    with pytest.raises(ObjectiveError, match="`embed` pools the token states of a bare encoder"):
        Outputs(embed=embed)(build(SchuBertForMaskedLM))
    dense = build(SchuBertModel)
    with pytest.raises(ObjectiveError, match="has no dense model yet"):
        Outputs()(dense)(batches(1)[0])
    with torch.no_grad():
        dense.embeddings.LayerNorm.weight[0] = math.nan
    with pytest.raises(ObjectiveError, match=r"What the dense model gives \(`states`\) is not finite"):
        Outputs().taught_by(dense, batches(1)[0], temperature=1.0, seed=0)

    class OtherForRhymes(SchuBertForMaskedLM):
        pass

    with pytest.raises(ObjectiveError, match="`OtherForRhymes` has a head whose outputs are not known"):
        Outputs()(build(OtherForRhymes))
