"""Scores of units against brute force: without each one alone, how far are the outputs from the dense model's?"""

import copy
from dataclasses import replace

import pytest
import torch
from oracles import batches, build, ragged
from scipy.stats import spearmanr
from torch.nn.functional import normalize

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
from schubert_hf.anatomy import layers
from schubert_hf.cost import ParameterCost, unit_cost
from schubert_hf.pruning.curvature import curvature_importance
from schubert_hf.pruning.units import find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.outputs import Outputs

MANY = {"num_labels": 3, "problem_type": "multi_label_classification"}
KINDS = {
    "embedding": (SchuBertModel, {}),
    "states": (SchuBertModel, {}),
    "words": (SchuBertForMaskedLM, {}),
    "pretraining": (SchuBertForPreTraining, {}),
    "next": (SchuBertForNextSentencePrediction, {}),
    "labels": (SchuBertForSequenceClassification, {"num_labels": 3}),
    "score": (SchuBertForSequenceClassification, {"num_labels": 1}),
    "many": (SchuBertForSequenceClassification, MANY),
    "choices": (SchuBertForMultipleChoice, {}),
    "tags": (SchuBertForTokenClassification, {"num_labels": 5}),
    "answers": (SchuBertForQuestionAnswering, {}),
}


def embed(states, mask):
    weights = mask.unsqueeze(-1).to(states)
    return normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


@torch.no_grad()
def loss(objective, data):
    """Summed over terms, per item of the first, as scores are; of a sentence encoder without its token states."""
    terms = [term for term in objective.terms if term != "states" or len(objective.terms) == 1]
    total = sum(float(objective(batch)[term]) for batch in data for term in terms)
    return total / sum(objective.count(batch)[objective.terms[0]] for batch in data)


def without(module, entries, values, *, output):
    """A hook that puts fixed values in place of some entries of what a module reads, or gives."""

    def put(x):
        x = x.clone()
        x[..., entries] = values
        return x

    if output:
        return module.register_forward_hook(lambda _m, _a, given: put(given))
    return module.register_forward_pre_hook(lambda _m, args: (put(args[0]),))


def mean_input(module, objective, data):
    """What a module reads at real tokens, in the mean: what its bias can restore."""
    found = []
    handle = module.register_forward_pre_hook(lambda _m, args: found.append(args[0]))
    with torch.no_grad():
        for batch in data:
            objective.predict(batch)
    handle.remove()
    real = [batch["attention_mask"].flatten(0, -2).bool() for batch in data]
    return torch.cat([x[mask] for x, mask in zip(found, real, strict=True)]).mean(0)


def brute_force(objective, group, units, data):
    """The loss without each unit of a group, its mean restored."""
    layer = layers(objective.model)[group.layer]
    sublayer = layer.filters if group.dimension == "f" else layer.attention
    by_query = group.dimension == "k"
    module = sublayer.inputs["query"] if by_query else sublayer.output
    width = module.out_features if by_query else module.in_features
    means = torch.zeros(width).double() if by_query else mean_input(module, objective, data)
    numbers = torch.arange(width)
    of_unit = numbers // (width // units) if group.dimension == "a" else numbers % units
    losses = []
    for unit in range(units):
        entries = numbers[of_unit == unit]
        handle = without(module, entries, means[entries], output=by_query)
        losses.append(loss(objective, data))
        handle.remove()
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_units_matter_in_the_order_of_their_scores(kind):
    head, fields = KINDS[kind]
    model = build(head, ragged(hidden_sizes=[36] * 3, filter_sizes=[19, 11, 15], **fields))
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # so small that the second order is what counts
            if "LayerNorm.weight" not in name:
                parameter.mul_(0.5)
    data = batches(3)
    if kind == "choices":
        data = [{name: x.view(2, 2, -1) for name, x in batch.items()} for batch in data]
    sample = {name: torch.cat([batch[name] for batch in data]) for name in data[0]}
    recipe = Outputs(embed=embed if kind == "embedding" else None, draws=8)
    make = recipe.taught_by(copy.deepcopy(model), sample, temperature=1.0, seed=0)
    objective = make(model).eval()
    cost, groups, shape = ParameterCost(model), find_groups(model.config, "fakv"), Shape.of(model.config)
    scores = curvature_importance(objective, groups, cost, data)
    rises, losses = [], []
    for group, units in groups.items():
        rises += (scores[group] * unit_cost(cost, shape, *group)).tolist()
        losses += brute_force(objective, group, units, [sample])
    assert spearmanr(rises, losses).statistic > 0.9
    # Not only in order: kinds compete on one scale.
    assert 0.7 < sum(rises) / sum(losses) < 1.4
    # Another seed, the same order.
    other = replace(make, seed=1)(model).eval()
    again = curvature_importance(other, groups, cost, data)
    assert spearmanr(rises, [x for g in groups for x in again[g] * unit_cost(cost, shape, *g)]).statistic > 0.9
