"""The estimate is what autograd saves and AdamW holds, and an error names the largest micro-batch that fits."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.run import memory
from schubert_hf.run.memory import MemoryEstimate, MemoryLimitError, check_fits, device_memory, estimate_training
from schubert_hf.training.distillation import DistillationObjective, Teacher
from schubert_hf.training.objective import IGNORED, Objective, PretrainingObjective

SHAPE: dict[str, Any] = {
    "hidden_sizes": [74, 62, 86],
    "filter_sizes": [82, 58, 106],
    "head_counts": [3, 2, 1],
    "key_query_sizes": [10, 14, 6],
    "value_sizes": [18, 8, 26],
    "vocab_size": 500,
    "max_position_embeddings": 64,
}
CPU = torch.device("cpu")
GIB = memory.GIB


def build_config(dropout: float = 0.1, attention: str = "sdpa", **fields: Any) -> SchuBertConfig:
    config = SchuBertConfig(**{**SHAPE, **fields}, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    config._attn_implementation = attention
    return config


def make_batch(config: SchuBertConfig, examples: int, seq_len: int, padded: bool) -> dict[str, Tensor]:
    tokens = examples * seq_len
    labels = torch.full((tokens,), IGNORED)
    labels[torch.randperm(tokens)[: round(0.15 * tokens)]] = 5
    mask = torch.ones(examples, seq_len, dtype=torch.long)
    mask[0, seq_len // 2 :] = 1 - int(padded)
    return {
        "input_ids": torch.randint(0, config.vocab_size, (examples, seq_len)),
        "attention_mask": mask,
        "token_type_ids": torch.zeros(examples, seq_len, dtype=torch.long),
        "labels": labels.view(examples, seq_len),
        "next_sentence_label": torch.zeros(examples, dtype=torch.long),
    }


def saved_bytes(objective: Objective, examples: int, seq_len: int, *, padded: bool = True, mixed: bool = False) -> int:
    """Bytes of all tensors that a forward pass saves for the backward pass, parameters and batch left out."""
    batch = make_batch(objective.model.config, examples, seq_len, padded)
    known = {x.untyped_storage().data_ptr() for x in (*objective.model.parameters(), *batch.values())}
    saved: dict[int, Tensor] = {}  # holds them, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed),
    ):
        objective.train()(batch)
    return sum(x.untyped_storage().nbytes() for pointer, x in saved.items() if pointer not in known)


def check(config: SchuBertConfig, examples: int = 3, seq_len: int = 32, **how: bool) -> None:
    objective = PretrainingObjective(SchuBertForPreTraining(config))
    saved = saved_bytes(objective, examples, seq_len, **how)
    estimate = estimate_training(config, 0, examples=examples, seq_len=seq_len, mixed=how.get("mixed", False))
    # Left out: masks of padding, which the fused kernel saves, and that they turn autocast's probabilities to float32.
    assert (0.85 if how.get("padded", True) else 0.97) * saved <= estimate.activations <= saved


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_sizes": [64] * 3, "key_query_sizes": [16] * 3, "value_sizes": [16] * 3, "vocab_size": 2000},
        {"filter_sizes": [82, 0, 106], "head_counts": [3, 0, 1]},
        {"hidden_sizes": [64, 96, 128], "key_query_sizes": [32, 16, 8]},
    ],
    ids=["ragged", "even", "without heads or filters", "widening"],
)
def test_activations_are_what_autograd_saves(
    fields: dict[str, Any], attention: str, dropout: float, padded: bool
) -> None:
    check(build_config(dropout, attention, **fields), padded=padded)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_mixed_precision(attention: str, dropout: float) -> None:
    check(build_config(dropout, attention), mixed=True)


@pytest.mark.parametrize("function", sorted({*memory.ACTIVATION_TENSORS, "silu"}))
def test_activation_functions(function: str) -> None:
    check(build_config(hidden_act=function), padded=False)


def test_longer_and_narrowing() -> None:
    check(build_config(hidden_sizes=[128, 96, 64], vocab_size=1500), examples=2, seq_len=64)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_activations_of_any_widths(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 3), label="layers")
    ranges = {
        "hidden_sizes": (48, 128),
        "filter_sizes": (0, 200),
        "head_counts": (0, 4),
        "key_query_sizes": (1, 40),
        "value_sizes": (1, 40),
    }
    fields: dict[str, Any] = {
        name: data.draw(st.lists(st.integers(*span), min_size=layers, max_size=layers), label=name)
        for name, span in ranges.items()
    }
    config = build_config(
        data.draw(st.sampled_from([0.0, 0.1]), label="dropout"),
        data.draw(st.sampled_from(["sdpa", "eager"]), label="attention"),
        vocab_size=data.draw(st.integers(100, 1000), label="vocabulary"),
        **fields,
    )
    objective = PretrainingObjective(SchuBertForPreTraining(config))
    saved = saved_bytes(objective, 2, 32, padded=data.draw(st.booleans(), label="padded"))
    assert 0.75 * saved <= estimate_training(config, 0, examples=2, seq_len=32).activations <= 1.05 * saved


def test_a_teacher_is_its_weights_and_what_its_predictions_add() -> None:
    config = build_config()
    teacher = SchuBertForPreTraining(config).eval().requires_grad_(False)
    alone = PretrainingObjective(SchuBertForPreTraining(config))
    both = DistillationObjective(PretrainingObjective(SchuBertForPreTraining(config)), Teacher(teacher))
    added = saved_bytes(both, 3, 32) - saved_bytes(alone, 3, 32)
    parameters = teacher.num_parameters()
    estimate = estimate_training(config, parameters, examples=3, seq_len=32, teacher=True)
    assert 0.97 * added <= estimate.teacher - 4 * parameters <= added
    assert estimate_training(config, parameters, examples=3, seq_len=32).teacher == 0


def test_weights_gradients_and_moments_are_what_adamw_holds() -> None:
    config = build_config()
    objective = PretrainingObjective(SchuBertForPreTraining(config))
    parameters = list(objective.parameters())
    optimizer = torch.optim.AdamW(parameters)
    sums = objective(make_batch(config, 3, 32, padded=False))
    (sums["mlm"] + sums["nsp"]).backward()
    optimizer.step()
    estimate = estimate_training(config, objective.model.num_parameters(), examples=3, seq_len=32)
    moments = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    assert estimate.weights == sum(x.nbytes for x in parameters)
    assert estimate.gradients == sum(x.grad.nbytes for x in parameters if x.grad is not None)
    assert estimate.optimizer == sum(x.nbytes for x in moments)


def test_what_is_not_trained_has_neither_gradients_nor_moments() -> None:
    estimate = estimate_training(build_config(), 1000, examples=3, seq_len=32, trained=10)
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (4000, 40, 80)


def test_an_accelerator_keeps_less_than_the_cpu() -> None:
    """Dropout masks of a byte, and no probabilities with sdpa; without dropout there is no such difference."""
    for attention in ("sdpa", "eager"):
        on = {
            device: estimate_training(
                build_config(0.1, attention), 0, examples=3, seq_len=64, device=device
            ).activations
            for device in ("cpu", "cuda")
        }
        assert on["cuda"] < on["cpu"]
    without = build_config(0.0, "eager")
    on = {device: estimate_training(without, 0, examples=3, seq_len=64, device=device) for device in ("cpu", "cuda")}
    assert on["cuda"] == on["cpu"]


def test_gradients_and_activations_stand_together_only_where_steps_accumulate() -> None:
    estimate = MemoryEstimate(weights=1, gradients=10, optimizer=100, activations=1000, teacher=10000)
    assert estimate.total == 11101
    assert dataclasses.replace(estimate, accumulates=True).total == 11111


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine with GiB of memory, of a container's own group whose files the folder holds."""

    def build(free: float, total: float) -> Path:
        state = SimpleNamespace(available=int(free * GIB), total=int(total * GIB))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
        monkeypatch.setattr(memory, "CGROUP", tmp_path)
        return tmp_path

    return build


def test_memory_of_this_machine() -> None:
    free, total = device_memory(CPU)
    assert 0 < free <= total
    assert device_memory(CPU, 2)[1] == total // 2


def test_memory_of_a_container(machine: Callable[..., Path]) -> None:
    group = machine(free=6, total=8)
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group / "memory.current").write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    assert device_memory(CPU) == (2 * GIB, 4 * GIB)
    (group / "memory.max").write_text("max\n")
    assert device_memory(CPU) == (6 * GIB, 8 * GIB)


def test_memory_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has reserved is its own to use; processes do not share the device."""
    module = SimpleNamespace(mem_get_info=lambda device: (5 * GIB, 8 * GIB), memory_reserved=lambda device: 2 * GIB)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert device_memory(torch.device("cuda"), processes=4) == (7 * GIB, 8 * GIB)


def quarter_each(examples: int) -> MemoryEstimate:
    """One GiB, and a quarter of one for each example."""
    return MemoryEstimate(
        weights=GIB // 2, gradients=0, optimizer=GIB // 2, activations=examples * GIB // 4, teacher=0
    )


def test_silent_where_it_fits(machine: Callable[..., Path]) -> None:
    machine(free=5, total=8)
    assert check_fits(quarter_each, examples=16, device=CPU) is None


def test_warns_of_more_than_is_free(machine: Callable[..., Path]) -> None:
    machine(free=4.9, total=8)
    warning = check_fits(quarter_each, examples=16, device=CPU)
    assert warning == (
        "The run may run out of memory: micro-batches of 16 examples need about 5.00 GiB to train, and `cpu` has 4.90 "
        "of 8.00 GiB free now."
    )


@pytest.mark.parametrize("examples", [14, 15, 200, 10**6])
def test_names_the_largest_micro_batch_that_fits(machine: Callable[..., Path], examples: int) -> None:
    machine(free=1, total=4.3)
    with pytest.raises(MemoryLimitError, match=r"`cpu` has 4\.30 GiB.*`--micro-batch-size` 13 or less") as error:
        check_fits(quarter_each, examples=examples, device=CPU)
    assert "weights 0.50, optimizer 0.50, activations" in str(error.value)
    assert check_fits(quarter_each, examples=13, device=CPU) is not None  # fits, though not into what is free
    with pytest.raises(MemoryLimitError):
        check_fits(quarter_each, examples=14, device=CPU)


def test_smaller_micro_batches_accumulate_gradients(machine: Callable[..., Path]) -> None:
    """At their fullest, the activations of one of several micro-batches stand beside the gradients."""
    machine(free=4, total=4)

    def estimate_for(examples: int) -> MemoryEstimate:
        return dataclasses.replace(quarter_each(examples), gradients=GIB)

    assert check_fits(estimate_for, examples=12, device=CPU) is None
    with pytest.raises(MemoryLimitError, match="`--micro-batch-size` 8 or less"):
        check_fits(estimate_for, examples=13, device=CPU)


def test_a_model_that_is_too_large(machine: Callable[..., Path]) -> None:
    machine(free=2, total=2)
    words = "1.00 GiB for each of 2 processes. Not even `--micro-batch-size` 1 fits"
    with pytest.raises(MemoryLimitError, match=re.escape(words)):
        check_fits(quarter_each, examples=16, device=CPU, processes=2)
    with pytest.raises(MemoryLimitError, match="Not even"):
        check_fits(quarter_each, examples=1, device=CPU, processes=2)


def test_a_real_estimate_grows_with_the_micro_batch(machine: Callable[..., Path]) -> None:
    config = build_config()

    def estimate_for(examples: int) -> MemoryEstimate:
        return estimate_training(config, 10**5, examples=examples, seq_len=64, accumulates=True)

    machine(free=0.1, total=0.1)
    with pytest.raises(MemoryLimitError) as error:
        check_fits(estimate_for, examples=4096, device=CPU)
    size = int(str(error.value).split("`--micro-batch-size` ")[1].split()[0])
    assert estimate_for(size).total <= int(0.1 * GIB) < estimate_for(size + 1).total
