"""The estimate is what a real step allocates and AdamW holds, and an error names the largest micro-batch that fits."""

import dataclasses
import gc
import platform
import weakref
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
from schubert_hf.run.memory import MemoryEstimate, estimate_training
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


def test_measuring_leaves_nothing_behind() -> None:
    """What the hooks of autograd are given must not keep the graph alive that they are called by."""
    objective, outputs = build(), []
    for module in objective.model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(weakref.ref(output)))
    estimate_training(Accelerator(cpu=True), objective, make_batch(), free=0)
    gc.collect()
    assert outputs
    assert not any(output() is not None for output in outputs)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_between_tensors_that_stay_is_returned() -> None:
    size, process = 2**16, psutil.Process()  # bytes: too small for memory of its own
    tensors = [torch.zeros(size, dtype=torch.uint8) for _ in range(2000)]
    del tensors[::2]
    held = process.memory_info().rss
    memory.return_freed()
    assert held - process.memory_info().rss > 0.5 * 1000 * size


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
