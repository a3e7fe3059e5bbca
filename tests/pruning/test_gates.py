"""Alphas against independent formulations: multiplied weights, and the model without them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CLASSES, build, build_gates, compute, difference, ragged
from torch.func import functional_call

from schubert_hf import SchuBertConfig, SchuBertForMaskedLM, SchuBertForPreTraining, SchuBertModel
from schubert_hf.pruning.gates import FoldError, Gates, fold_tensors
from schubert_hf.pruning.units import Group, find_groups

CLOSE = 1e-12


def multiplied(model, alphas):
    """The parameters of a model with the alphas multiplied in, matrix by matrix as the paper's table says."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    config = model.config
    alpha_l = {i: alphas.get(f"l{i}", torch.ones(1, dtype=torch.float64)) for i in range(3)}
    for i in range(3):
        h, a, k, v, f = alphas["h"][: config.hidden_sizes[i]], *(alphas[f"{letter}{i}"] for letter in "akvf")
        layer = f"bert.encoder.layer.{i}."
        rows_k, rows_v = torch.outer(a, k).flatten(), torch.outer(a, v).flatten()
        for name, rows, columns in (
            ("attention.self.query", rows_k, h),
            ("attention.self.key", rows_k, h),
            ("attention.self.value", rows_v, h),
            ("attention.output.dense", alpha_l[i] * h, rows_v),
            ("intermediate.dense", f, h),
            ("output.dense", alpha_l[i] * h, f),
        ):
            parameters[f"{layer}{name}.weight"] = parameters[f"{layer}{name}.weight"] * torch.outer(rows, columns)
            parameters[f"{layer}{name}.bias"] = parameters[f"{layer}{name}.bias"] * rows
    if "e" in alphas:
        rows, name = alphas["h"][: config.hidden_sizes[0]], "bert.embeddings_project"
        parameters[f"{name}.weight"] = parameters[f"{name}.weight"] * torch.outer(rows, alphas["e"])
        parameters[f"{name}.bias"] = parameters[f"{name}.bias"] * rows
    return parameters


def loss(outputs):
    return sum((output * torch.linspace(-1, 1, output.numel()).double().view_as(output)).sum() for output in outputs)


@pytest.mark.parametrize(("attention", "layers"), [("eager", False), ("sdpa", False), ("sdpa", True)])
def test_values_and_gradients_are_those_of_multiplied_weights(attention, layers):
    config = ragged(hidden_sizes=[36, 36, 36]) if layers else ragged(embedding_size=19)
    config._attn_implementation = attention
    model = build(SchuBertForPreTraining, config)
    gates = build_gates(config, "hfakvl" if layers else "hfakve")
    model.requires_grad_(False)
    inputs = {
        "input_ids": torch.arange(22).reshape(2, 11),
        "attention_mask": torch.tensor([[1] * 11, [1] * 6 + [0] * 5]),
    }
    alphas = {str(group): gates[group].detach().clone().requires_grad_() for group in gates.groups}

    oracle = loss(functional_call(model, multiplied(model, alphas), kwargs=inputs).to_tuple())
    expected = torch.autograd.grad(oracle, list(alphas.values()))
    with gates.attached(model):
        ours = loss(model(**inputs).to_tuple())
    gradients = torch.autograd.grad(ours, [gates[group] for group in gates.groups])

    torch.testing.assert_close(ours, oracle, rtol=1e-12, atol=1e-9)
    for name, gradient, one in zip(alphas, gradients, expected, strict=True):
        torch.testing.assert_close(gradient, one, rtol=1e-9, atol=1e-9, msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", CLASSES)
def test_all_ones_change_nothing(kind):
    model = build(kind)
    assert difference(compute(model, Gates(model.config).double()), compute(model)) < CLOSE


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.sets(st.sampled_from("hfakvl"), min_size=1).map("".join))
def test_folding_changes_nothing(dimensions):
    model = build(SchuBertForPreTraining, ragged(hidden_sizes=[36, 36, 36]) if "l" in dimensions else ragged())
    gates = build_gates(model.config, dimensions)
    folded = copy.deepcopy(model)
    folded.load_state_dict(fold_tensors(model, gates))
    assert difference(compute(folded), compute(model, gates)) < CLOSE


def test_folding_leaves_the_model_alone():
    model = build(SchuBertForMaskedLM)
    before = copy.deepcopy(model.state_dict())
    fold_tensors(model, build_gates(model.config))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_folding_keeps_the_dtype_and_rounds_once(dtype):
    model = build(SchuBertModel).to(dtype)
    gates = build_gates(model.config, "ha")
    name = "encoder.layer.1.attention.output.dense.weight"
    exact = model.get_parameter(name).double() * torch.outer(
        gates[Group("h", None)][:31], gates[Group("a", 1)].repeat_interleave(4)
    )
    assert torch.equal(fold_tensors(model, gates)[name], exact.to(dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_folding_refuses_what_is_not_finite(value):
    model = build(SchuBertModel)
    gates = build_gates(model.config)
    with torch.no_grad():
        gates[Group("f", 1)][3] = value
    with pytest.raises(FoldError, match="The alphas of group `f1` are not all finite"):
        fold_tensors(model, gates)


def test_folding_refuses_to_overflow():
    model = build(SchuBertModel).to(torch.float16)
    gates = build_gates(model.config)
    with torch.no_grad():
        gates[Group("v", 0)][0] = 1e6
    with pytest.raises(FoldError, match=r"layer.0.attention.self.value.weight` is not finite in torch.float16"):
        fold_tensors(model, gates)


def test_detaching_leaves_no_trace_also_after_an_error():
    model = build(SchuBertForMaskedLM)
    gates, before = build_gates(model.config), compute(model)
    with pytest.raises(KeyboardInterrupt), gates.attached(model):
        raise KeyboardInterrupt
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.bert.embeddings.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.cls.modules())
    assert difference(compute(model), before) == 0


@pytest.mark.parametrize("removed", [(), (1, 40)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_alphas_in_full_precision_gate_a_model_in_less(dtype, removed):
    exact, model = build(SchuBertForPreTraining), build(SchuBertForPreTraining).to(dtype)
    gates = build_gates(model.config).float()
    gates.zero({Group("h", None): torch.tensor(removed, dtype=torch.long)})
    outputs = compute(model, gates)
    assert {output.dtype for output in outputs} == {dtype}
    expected = compute(exact, copy.deepcopy(gates).double())
    for ours, theirs in zip(outputs, expected, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (0.2 if dtype is torch.bfloat16 else 1e-5)


def test_penalty_is_one_at_the_start_and_weighs_absolute_values():
    gates = Gates(ragged(), "fa")
    weights = {group: {"f": 2.0, "a": 5.0}[group.dimension] for group in gates.groups}
    assert gates.penalty(weights).item() == pytest.approx(1)
    with torch.no_grad():
        gates[Group("a", 0)][1] = -3.0
    total = 2 * (41 + 29 + 53) + 5 * (3 + 2 + 1)
    assert gates.penalty(weights).item() == pytest.approx(1 + 5 * 2 / total)
    with torch.no_grad():
        for alphas in gates.parameters():
            alphas.zero_()
    assert gates.penalty(weights).item() == 0


def test_one_alpha_per_unit():
    assert sum(find_groups(SchuBertConfig(), "hfakv").values()) == 39_312  # BERT-base's, as the paper counts them
    gates = Gates(ragged(head_counts=[3, 0, 1], filter_sizes=[0, 29, 53]))
    assert [str(group) for group in gates.groups] == ["h", "f1", "f2", "a0", "a2", "k0", "k2", "v0", "v2"]
    assert all(torch.equal(alpha, torch.ones(gates.groups[group])) for group, alpha in gates.values().items())
    assert gates.summary()["f2"] == [1, 1, 1]


def test_hollow_layers_are_gated_too():
    model = build(SchuBertForPreTraining, ragged(head_counts=[3, 0, 1], filter_sizes=[0, 29, 53]))
    gates = build_gates(model.config)
    folded = copy.deepcopy(model)
    folded.load_state_dict(fold_tensors(model, gates))
    assert difference(compute(folded), compute(model, gates)) < CLOSE
