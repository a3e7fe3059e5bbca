"""The estimate is what a real step allocates and AdamW holds, and an error names the largest micro-batch that fits."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.profiler import profile

from schubert_hf import SchuBertConfig, SchuBertForPreTraining, SchuBertForSequenceClassification
from schubert_hf.run import memory
from schubert_hf.run.memory import MemoryEstimate, MemoryLimitError, check_memory, device_memory, estimate_training
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
EXAMPLES, LENGTH = 12, 32


class Classification(Objective):
    """A head that the objectives of text know nothing of."""

    def count(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {"loss": len(batch["next_sentence_label"])}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits
        return {"loss": nn.functional.cross_entropy(logits, batch["next_sentence_label"], reduction="sum")}


def build_config(dropout: float = 0.1, attention: str = "sdpa", **fields: Any) -> SchuBertConfig:
    config = SchuBertConfig(**{**SHAPE, **fields}, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    config._attn_implementation = attention
    return config


def build(config: SchuBertConfig | None = None) -> PretrainingObjective:
    return PretrainingObjective(SchuBertForPreTraining(config or build_config()))


def make_batch(padded: bool = True, spread: int = 0) -> dict[str, Tensor]:
    """Examples of 4 to 6 predicted tokens each, or of up to `spread` more."""
    labels = torch.full((EXAMPLES, LENGTH), IGNORED)
    for number, row in enumerate(labels):
        row[: 4 + number % 3 + spread * number // EXAMPLES] = 5
    mask = torch.ones(EXAMPLES, LENGTH, dtype=torch.long)
    mask[0, LENGTH // 2 :] = 1 - int(padded)
    return {
        "input_ids": torch.randint(0, SHAPE["vocab_size"], (EXAMPLES, LENGTH)),
        "attention_mask": mask,
        "token_type_ids": torch.zeros(EXAMPLES, LENGTH, dtype=torch.long),
        "labels": labels,
        "next_sentence_label": torch.zeros(EXAMPLES, dtype=torch.long),
    }


def allocated(objective: Objective, batch: dict[str, Tensor], accelerator: Accelerator) -> int:
    """What a forward pass in training allocates and does not free before the backward pass, by torch's profiler."""
    objective.train()
    with accelerator.autocast(), profile(profile_memory=True) as profiler:
        outputs = objective(batch)
    assert outputs
    return sum(event.self_cpu_memory_usage for event in profiler.key_averages())


def check(objective: Objective, batch: dict[str, Tensor] | None = None, mixed: str = "no") -> None:
    accelerator = Accelerator(cpu=True, mixed_precision=mixed)
    batch = make_batch() if batch is None else batch
    estimate = estimate_training(accelerator, objective, batch, free=0)
    for examples in (3, 6, EXAMPLES):
        real = allocated(objective, {name: value[:examples] for name, value in batch.items()}, accelerator)
        # The typical example is not padded; where others of the batch are, their mask adds a little.
        assert 0.9 * real <= estimate.fixed + examples * estimate.per_example <= 1.03 * real


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_sizes": [64] * 3, "key_query_sizes": [16] * 3, "value_sizes": [16] * 3, "filter_sizes": [128] * 3},
        {"filter_sizes": [82, 0, 106], "head_counts": [3, 0, 1]},
        {"hidden_sizes": [64, 96, 128], "key_query_sizes": [32, 16, 8]},
    ],
    ids=["ragged", "even", "without heads or filters", "widening"],
)
def test_activations_are_what_a_step_keeps(
    fields: dict[str, Any], attention: str, dropout: float, padded: bool
) -> None:
    check(build(build_config(dropout, attention, **fields)), make_batch(padded))


@pytest.mark.parametrize("function", ["relu", "gelu_new", "tanh", "silu", "quick_gelu"])
def test_any_activation_function(function: str) -> None:
    check(build(build_config(hidden_act=function)))


def test_any_head() -> None:
    check(Classification(SchuBertForSequenceClassification(build_config())))


def test_what_is_not_one_item_per_example_is_left_alone() -> None:
    batch: Any = {**make_batch(), "class_weights": torch.ones(2), "scale": torch.tensor(2.0), "names": ["a", "b"]}
    accelerator, objective = Accelerator(cpu=True), build()
    expected = estimate_training(accelerator, objective, make_batch(), free=0)
    assert estimate_training(accelerator, objective, batch, free=0).per_example == pytest.approx(
        expected.per_example, rel=0.01
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_mixed_precision(attention: str) -> None:
    """Half-precision copies of the weights are kept once, however many examples there are."""
    objective = build(build_config(0.1, attention))
    check(objective, mixed="bf16")
    estimate = estimate_training(Accelerator(cpu=True, mixed_precision="bf16"), objective, make_batch(), free=0)
    matrices = sum(x.numel() for x in objective.parameters() if x.ndim == 2)
    assert matrices < estimate.fixed < 2.2 * matrices


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_a_teacher_adds_its_weights_and_what_its_predictions_keep(hidden: float) -> None:
    """Beside a student without dropout, which rests while a teacher is followed."""
    teacher = SchuBertForPreTraining(build_config()).eval().requires_grad_(False)
    both = DistillationObjective(build(), Teacher(teacher, hidden_weight=hidden))
    check(both)
    alone, taught = (
        estimate_training(Accelerator(cpu=True), objective, make_batch(), free=0, teacher=model)
        for objective, model in ((build(build_config(0.0)), None), (both, teacher))
    )
    assert taught.teacher == 4 * teacher.num_parameters()
    assert alone.teacher == 0
    assert taught.weights == alone.weights
    assert taught.per_example > alone.per_example


def test_a_typical_example_is_measured() -> None:
    check(build(), make_batch(spread=0))
    objective, batch = build(), make_batch(spread=20)
    mean = allocated(objective, batch, Accelerator(cpu=True)) / EXAMPLES
    estimate = estimate_training(Accelerator(cpu=True), objective, batch, free=0)
    assert estimate.per_example == pytest.approx(mean, rel=0.03)


def test_weights_gradients_and_moments_are_what_adamw_holds() -> None:
    objective = build()
    parameters = list(objective.parameters())
    optimizer = torch.optim.AdamW(parameters)
    sums = objective(make_batch())
    (sums["mlm"] + sums["nsp"]).backward()
    optimizer.step()
    estimate = estimate_training(Accelerator(cpu=True), objective, make_batch(), free=0)
    moments = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    assert estimate.weights == sum(x.nbytes for x in parameters)
    assert estimate.gradients == sum(x.grad.nbytes for x in parameters if x.grad is not None)
    assert estimate.optimizer == sum(x.nbytes for x in moments)


def test_what_is_not_trained_has_neither_gradients_nor_moments() -> None:
    objective = build()
    estimate = estimate_training(Accelerator(cpu=True), objective, make_batch(), free=0, trains=False)
    assert (estimate.gradients, estimate.optimizer) == (0, 0)
    objective.model.bert.embeddings.requires_grad_(False)
    frozen = sum(x.nbytes for x in objective.model.bert.embeddings.parameters())
    estimate = estimate_training(Accelerator(cpu=True), objective, make_batch(), free=0)
    assert estimate.gradients == estimate.weights - frozen


def test_measuring_changes_nothing() -> None:
    objective, batch = build(), make_batch()
    objective.eval()
    objective.model.bert.encoder.train()
    modes = [module.training for module in objective.modules()]
    state, weights = torch.get_rng_state(), {name: x.clone() for name, x in objective.state_dict().items()}
    estimate_training(Accelerator(cpu=True), objective, batch, free=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in objective.modules()] == modes
    assert all(torch.equal(x, weights[name]) for name, x in objective.state_dict().items())
    assert all(x.grad is None for x in objective.parameters())


def test_without_room_on_the_device_nothing_is_measured() -> None:
    """An accelerator is not filled to find out that it is full; `meta` stands for one."""
    objective, accelerator = build(), SimpleNamespace(device=torch.device("meta"))
    estimate = estimate_training(accelerator, objective, make_batch(), free=objective.model.num_parameters() * 4)
    assert estimate.weights > 0
    assert (estimate.fixed, estimate.per_example) == (0, 0)


def test_gradients_and_activations_stand_together_only_where_steps_accumulate() -> None:
    estimate = MemoryEstimate(weights=1, gradients=10, optimizer=100, fixed=1000, per_example=500, teacher=10000)
    assert estimate.total(2, accumulates=False) == 12101
    assert estimate.total(2, accumulates=True) == 12111
    assert estimate.total(2, accumulates=True) == dataclasses.replace(estimate, fixed=1010).total(2, accumulates=False)


@pytest.mark.parametrize("limit", range(900, 3000, 70))
def test_the_largest_micro_batch_is_the_largest(limit: int) -> None:
    estimate = MemoryEstimate(weights=100, gradients=100, optimizer=200, fixed=500, per_example=130)
    fitting = [n for n in range(1, 40) if estimate.total(n, accumulates=True) <= limit]
    assert estimate.largest(limit) == max(fitting, default=0)


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


@pytest.fixture
def try_on(machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Check a run of one GiB, and a quarter of one for each example, on a machine of so many GiB."""

    def run(examples: int, free: float, total: float, processes: int = 1, **parts: int) -> None:
        machine(free, total)
        estimate = MemoryEstimate(**{"weights": GIB, "gradients": 0, "optimizer": 0, "per_example": GIB // 4, **parts})
        monkeypatch.setattr(memory, "estimate_training", lambda *args, **options: estimate)
        accelerator: Any = SimpleNamespace(
            device=CPU, num_processes=processes, gradient_accumulation_steps=1, is_main_process=True
        )
        check_memory(accelerator, nn.Module(), {}, batch_size=examples * processes)

    return run


def test_silent_where_it_fits(try_on: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    try_on(16, free=5, total=8)
    assert not caplog.records


def test_warns_of_more_than_is_free(try_on: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    try_on(16, free=4.9, total=8)
    assert caplog.messages == [
        "The run may run out of memory: micro-batches of 16 examples need about 5.00 GiB to train, and `cpu` has 4.90 "
        "of 8.00 GiB free now."
    ]


@pytest.mark.parametrize("examples", [14, 15, 200, 10**6])
def test_names_the_largest_micro_batch_that_fits(try_on: Callable[..., None], examples: int) -> None:
    with pytest.raises(MemoryLimitError, match=r"`cpu` has 4\.30 GiB.*`--micro-batch-size` 13 or less") as error:
        try_on(examples, free=1, total=4.3)
    assert "weights 1.00, activations" in str(error.value)
    try_on(13, free=1, total=4.3)  # fits, though not into what is free


def test_smaller_micro_batches_accumulate_gradients(try_on: Callable[..., None]) -> None:
    """At their fullest, the activations of one of several micro-batches stand beside the gradients."""
    try_on(12, free=4, total=4, gradients=GIB)
    with pytest.raises(MemoryLimitError, match="`--micro-batch-size` 8 or less"):
        try_on(13, free=4, total=4, gradients=GIB)


def test_a_model_that_is_too_large(try_on: Callable[..., None]) -> None:
    words = "1.00 GiB for each of 2 processes. Not even `--micro-batch-size` 1 fits"
    with pytest.raises(MemoryLimitError, match=re.escape(words)):
        try_on(16, free=2, total=2, processes=2)
    with pytest.raises(MemoryLimitError, match="Not even"):
        try_on(1, free=2, total=2, processes=2)


def test_a_real_run(machine: Callable[..., Path]) -> None:
    machine(free=0.1, total=0.1)
    accelerator, objective, batch = Accelerator(cpu=True), build(), make_batch()
    with pytest.raises(MemoryLimitError) as error:
        check_memory(accelerator, objective, batch, batch_size=4096)
    size = int(str(error.value).split("`--micro-batch-size` ")[1].split()[0])
    estimate = estimate_training(accelerator, objective, batch, free=0)
    limit = int(0.1 * GIB)
    assert estimate.total(size, accumulates=True) <= limit < estimate.total(size + 1, accumulates=True)
    check_memory(accelerator, objective, batch, batch_size=4096, micro_batch_size=size)
