"""The default method on a device that has no float64, against the CPU."""

import pytest
import torch
from devices import OnDevice, WithoutFloat64, move, put
from oracles import batches, build, ragged

from schubert_hf import SchuBertForMaskedLM, compact
from schubert_hf.cost import ParameterCost
from schubert_hf.pruning.basis import change_basis
from schubert_hf.pruning.curvature import curvature_importance
from schubert_hf.pruning.gates import Gates, fold_tensors
from schubert_hf.pruning.moments import measure_heads
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import PretrainingObjective


def dense_and_data():
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36])).float()
    model.set_attn_implementation("eager")
    data = batches(6)
    for batch in data:
        batch["labels"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    return model, data


def look(model, data):
    """Moments and scores of the default method."""
    groups, cost = find_groups(model.config, "hfakv"), ParameterCost(model)
    return measure_heads(model, data), curvature_importance(PretrainingObjective(model), groups, cost, data)


def test_that_device_refuses_float64():
    with WithoutFloat64(), pytest.raises(TypeError, match="doesn't support float64"):
        put(torch.ones(3)).double()
    with WithoutFloat64(), pytest.raises(TypeError, match="doesn't support float64"):
        torch.zeros(3, dtype=torch.float64, device="meta")


def test_the_default_method_needs_no_float64_there():
    model, data = dense_and_data()
    moments, scores = look(model, data)
    with WithoutFloat64():
        model = move(model)
        data = [{name: put(tensor) for name, tensor in batch.items()} for batch in data]
        moments_there, scores_there = look(model, data)
        turned = change_basis(model, moments_there)
        cost = ParameterCost(model)
        plan = select(scores_there, model.config, cost, 0.7 * cost(Shape.of(model.config)))
        pruned = restore(compact(turned, plan), turned, plan, data)
        alphas = Gates(model.config)
        folded = fold_tensors(model, alphas)
    for there, here in zip(moments_there, moments, strict=True):
        for name in ("query", "key", "value", "value_mean"):
            torch.testing.assert_close(getattr(there, name), getattr(here, name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores_there, scores)
    assert Shape.of(pruned.config) == plan.shape
    assert all(isinstance(tensor, OnDevice) and tensor.dtype == torch.float32 for tensor in pruned.parameters())
    assert all(bool(torch.isfinite(tensor.detach().cpu()).all()) for tensor in pruned.parameters())
    assert all(tensor.dtype == torch.float32 for tensor in folded.values())
