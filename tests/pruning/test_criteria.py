"""Criteria by their definitions."""

import pytest
import torch
from oracles import build, ragged

from schubert_hf import SchuBertForPreTraining
from schubert_hf.anatomy import place_of_tensor
from schubert_hf.pruning.criteria import (
    alpha_importance,
    magnitude_importance,
    random_importance,
    ranks_within_groups,
)
from schubert_hf.pruning.gates import Gates, fold_tensors
from schubert_hf.pruning.units import Group, find_groups


def test_a_large_negative_alpha_matters():
    alphas = {Group("f", 0): torch.tensor([0.5, -2.0, 0.0]), Group("h", None): torch.tensor([-0.1])}
    scores = alpha_importance(alphas)
    assert scores[Group("f", 0)].tolist() == [0.5, 2.0, 0.0]
    assert list(scores) == list(alphas)
    assert alphas[Group("f", 0)].tolist() == [0.5, -2.0, 0.0]


@pytest.mark.parametrize("uneven", [True, False])
def test_magnitude_is_the_mean_over_what_an_alpha_of_0_would_erase(uneven):
    fields = {} if uneven else {"hidden_sizes": [37, 37, 37]}
    model = build(SchuBertForPreTraining, ragged(**fields)).requires_grad_(False)
    dimensions = "hfakv" if uneven else "hfakvl"
    groups = find_groups(model.config, dimensions)
    scores = magnitude_importance(groups, model.named_parameters())
    assert {group: len(score) for group, score in scores.items()} == groups
    for group, units in groups.items():
        for unit in {0, units // 2, units - 1}:
            gates = Gates(model.config, dimensions).double()
            with torch.no_grad():
                gates[group][unit] = 0.0
            folded = fold_tensors(model, gates)
            erased = [
                tensor[folded[name] == 0]
                for name, tensor in model.named_parameters()
                if tensor.ndim == 2 and place_of_tensor(name).row.gated
            ]
            if group.dimension == "l":  # its alpha stands on P and G alone, but all of the layer is its own
                erased = [
                    tensor.flatten()
                    for name, tensor in model.named_parameters()
                    if f"layer.{group.layer}." in name and tensor.ndim == 2
                ]
            own = torch.cat(erased)
            assert len(own) > 0
            assert float(scores[group][unit]) == pytest.approx(float(own.square().mean().sqrt()), rel=1e-12)


def test_random_scores_are_those_of_the_seed():
    groups = {Group("f", 0): 40, Group("h", None): 7}
    one, again, other = (random_importance(groups, seed) for seed in (3, 3, 4))
    assert all(torch.equal(one[group], again[group]) for group in groups)
    assert not torch.equal(one[Group("f", 0)], other[Group("f", 0)])
    assert {group: len(score) for group, score in one.items()} == groups


def test_ranks_spread_every_group_over_the_same_range():
    scores = {Group("f", 0): torch.tensor([5.0, -1.0, 3.0, 9.0]), Group("a", 1): torch.tensor([1e-9, 1e-8])}
    scores |= {Group("l", layer): torch.tensor([value]) for layer, value in enumerate((3.0, 1.0))}
    ranks = ranks_within_groups(scores)
    assert ranks[Group("f", 0)].tolist() == [0.625, 0.125, 0.375, 0.875]
    assert ranks[Group("a", 1)].tolist() == [0.25, 0.75]
    assert [float(ranks[Group("l", layer)]) for layer in (0, 1)] == [0.75, 0.25]
