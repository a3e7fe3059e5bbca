"""A step is what plain PyTorch would do, however it is cut up; a resumed run is the uninterrupted one, bit by bit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase, get_scheduler

from schubert_hf import SchuBertForPreTraining
from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.run.checkpoint import MODEL, CheckpointError, load_optimizer, load_state, save_checkpoint
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import LoopConfig, LoopConfigError
from schubert_hf.training.objective import Batch, PretrainingObjective
from schubert_hf.training.step import NonFiniteLossError, StepResult

Build = Callable[..., PretrainingObjective]


@pytest.fixture
def stream(pairs: Dataset) -> ExampleStream:
    return ExampleStream(pairs, seed=0)


@pytest.fixture
def collator(tokenizer: PreTrainedTokenizerBase) -> MaskingCollator:
    return MaskingCollator(tokenizer, seed=0)


@pytest.fixture
def new_loop(objective: Build) -> Callable[..., TrainingLoop]:
    def build(own: PretrainingObjective | None = None, accelerator: Accelerator | None = None, **settings: Any):
        own = own or objective()
        settings = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 2, **settings}
        return TrainingLoop(
            accelerator or Accelerator(cpu=True), own, own.model.named_parameters(), LoopConfig(**settings)
        )

    return build


def weights(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in zip(loop.names, loop.parameters, strict=True)}


def test_equals_plain_pytorch(
    objective: Build, new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator
) -> None:
    loop = new_loop(weight_decay=0.1)
    results = loop.run(stream, collator)

    model = objective().model.train()
    decay = [p for name, p in model.named_parameters() if p.ndim > 1]
    rest = [p for name, p in model.named_parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=1e-2, weight_decay=0.1
    )
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=2, num_training_steps=6)
    for step, result in enumerate(results):
        output = model(**collator([stream[position] for position in range(8 * step, 8 * step + 8)]))
        output.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert result.step == step
        assert result.loss == pytest.approx(output.loss.item(), rel=1e-5)
        assert result.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        assert result.learning_rate == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for name, value in model.named_parameters():
        torch.testing.assert_close(weights(loop)[name], value, rtol=1e-4, atol=1e-5)
    assert results[-1].loss < results[0].loss


@pytest.mark.parametrize("settings", [{"micro_batch_size": 2}, {"micro_batch_size": 3}, {"workers": 1}])
def test_a_step_is_the_same_however_it_is_cut_up(
    new_loop: Callable[..., TrainingLoop],
    stream: ExampleStream,
    collator: MaskingCollator,
    settings: dict[str, int],
) -> None:
    whole, cut = new_loop(steps=3), new_loop(steps=3, **settings)
    for one, other in zip(whole.run(stream, collator), cut.run(stream, collator), strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-6)
        assert one.accuracies == pytest.approx(other.accuracies, abs=1e-6)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(cut)[name], rtol=0, atol=2e-6)


def test_accumulation_of_the_users_accelerate_config_changes_nothing(
    new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator
) -> None:
    plain, configured = new_loop(), new_loop(accelerator=Accelerator(cpu=True, gradient_accumulation_steps=4))
    assert plain.run(stream, collator) == configured.run(stream, collator)
    assert all(torch.equal(value, weights(configured)[name]) for name, value in weights(plain).items())


def test_resumed_equals_uninterrupted(
    tmp_path: Path,
    objective: Build,
    new_loop: Callable[..., TrainingLoop],
    stream: ExampleStream,
    collator: MaskingCollator,
) -> None:
    through = new_loop(objective(dropout=0.2), micro_batch_size=4)
    expected = through.run(stream, collator, offset=5)

    first = new_loop(objective(dropout=0.2), micro_batch_size=4)
    results = first.run(stream, collator, offset=5, stop=4)
    save_checkpoint(
        tmp_path / "step", first.objective.model, state={"step": first.step}, optimizer=first.state_tensors()
    )
    torch.manual_seed(99)
    model = SchuBertForPreTraining.from_pretrained(tmp_path / "step" / MODEL)
    second = new_loop(PretrainingObjective(model), micro_batch_size=4)
    second.load_state(load_state(tmp_path / "step")["step"], load_optimizer(tmp_path / "step"))
    results += second.run(stream, collator, offset=5)

    assert results == expected
    assert all(torch.equal(value, weights(through)[name]) for name, value in weights(second).items())


def test_resumed_equals_uninterrupted_with_a_collator_that_draws_from_the_global_generator(
    objective: Build, new_loop: Callable[..., TrainingLoop], pairs: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    stream = ExampleStream(pairs.select_columns("input_ids").select(range(50)))
    padding = DataCollatorForLanguageModeling(tokenizer, return_tensors="pt")

    def collate(rows: list[dict[str, Any]]) -> Batch:
        assert set(rows[0]) == {"input_ids"}
        rows = [{"input_ids": row["input_ids"] + [0] * (32 - len(row["input_ids"]))} for row in rows]
        return {**padding(rows), "next_sentence_label": torch.zeros(len(rows), dtype=torch.long)}

    through, second = new_loop(objective(0.2)), new_loop(objective(0.2))
    expected = through.run(stream, collate)
    results = second.run(stream, collate, stop=3)
    torch.manual_seed(99)
    assert results + second.run(stream, collate) == expected


def test_stopping_in_on_step_leaves_a_whole_step(
    new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator
) -> None:
    through, stopped = new_loop(), new_loop()
    expected = through.run(stream, collator)

    def stop(result: StepResult) -> None:
        if result.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(stream, collator, on_step=stop)
    assert stopped.step == 3
    assert stopped.run(stream, collator) == expected[3:]


def test_frozen_parameters_get_no_gradient(
    objective: Build, accelerator: Accelerator, stream: ExampleStream, collator: MaskingCollator
) -> None:
    own = objective()
    own.requires_grad_(False)
    before = {name: value.clone() for name, value in own.model.named_parameters()}
    trained = [(name, value.requires_grad_()) for name, value in own.model.named_parameters() if "query" in name]
    TrainingLoop(accelerator, own, trained, LoopConfig(steps=2, batch_size=4, learning_rate=0.1)).run(stream, collator)
    for name, value in own.model.named_parameters():
        assert torch.equal(value, before[name]) != ("query" in name)
        assert "query" in name or value.grad is None


def test_penalty_is_added_once_per_step(
    objective: Build, accelerator: Accelerator, stream: ExampleStream, collator: MaskingCollator
) -> None:
    norms = []
    for micro in (None, 2):
        own = objective()
        own.requires_grad_(False)
        word = own.model.get_input_embeddings().weight.requires_grad_()
        loop = TrainingLoop(
            accelerator,
            own,
            [("word", word)],
            LoopConfig(steps=1, batch_size=4, micro_batch_size=micro, max_grad_norm=0.0),
            penalty=lambda word=word: 3.0 * word.abs().sum(),
        )
        expected = torch.autograd.grad(
            own.train().model(**collator([stream[position] for position in range(4)])).loss + 3.0 * word.abs().sum(),
            word,
        )[0].norm()
        before = 3.0 * word.detach().abs().sum().item()
        (result,) = loop.run(stream, collator)
        assert result.penalty == pytest.approx(before)
        assert result.loss < result.penalty
        assert result.grad_norm == pytest.approx(expected.item(), rel=1e-5)
        norms.append(result.grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient", "penalty"])
def test_a_loss_that_is_not_finite_leaves_the_weights(
    objective: Build, accelerator: Accelerator, stream: ExampleStream, collator: MaskingCollator, where: str
) -> None:
    class Broken(PretrainingObjective):
        broken = False

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            sums = super().forward(batch)
            if self.broken:
                word = self.model.get_input_embeddings().weight
                # The root's slope at 0 is infinite: a finite loss with a gradient that is not.
                sums["mlm"] = (
                    sums["mlm"] * math.nan if where == "loss" else sums["mlm"] + (word * 0).abs().sum().sqrt()
                )
            return sums

    own = Broken(objective().model)
    penalty = (
        (lambda: own.model.get_input_embeddings().weight.sum() * (math.nan if own.broken else 1))
        if where == "penalty"
        else None
    )
    loop = TrainingLoop(
        accelerator, own, own.model.named_parameters(), LoopConfig(steps=4, batch_size=4), penalty=penalty
    )
    loop.run(stream, collator, stop=2)
    own.broken, before = True, weights(loop)
    state = {name: value.clone() for name, value in loop.state_tensors().items()}
    if where == "penalty":
        own.forward = lambda batch: PretrainingObjective.forward(own, batch)  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"Step 2: .*before this step"):
        loop.run(stream, collator)
    assert loop.step == 2
    assert all(torch.equal(value, before[name]) for name, value in weights(loop).items())
    assert all(torch.equal(value, state[name]) for name, value in loop.state_tensors().items())
    assert all(value.grad is None for value in loop.parameters)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_learning_rates_are_those_of_the_named_schedule(
    new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator, schedule: str
) -> None:
    results = new_loop(schedule=schedule, steps=4, batch_size=1).run(stream, collator)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-2)
    reference = get_scheduler(schedule, optimizer, num_warmup_steps=2, num_training_steps=4)
    for result in results:
        assert result.learning_rate == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_no_steps(new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator) -> None:
    loop = new_loop(steps=0)
    assert loop.run(stream, collator) == []
    assert loop.state_tensors() == {}


def test_optimizer_state_of_another_model_is_refused(
    new_loop: Callable[..., TrainingLoop], stream: ExampleStream, collator: MaskingCollator
) -> None:
    loop = new_loop()
    loop.run(stream, collator, stop=1)
    state = loop.state_tensors()
    name = next(key for key, value in state.items() if value.ndim == 2)
    with pytest.raises(CheckpointError, match="expected"):
        new_loop().load_state(1, {**state, name: state[name][1:]})
    with pytest.raises(CheckpointError, match="no such parameter"):
        new_loop().load_state(1, {"elsewhere.exp_avg": torch.zeros(2)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "`steps` is -1"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"micro_batch_size": 0}, "`micro_batch_size` is 0"),
        ({"learning_rate": math.nan}, "`learning_rate` is nan"),
        ({"learning_rate": -1e-3}, "`learning_rate` is -0.001"),
        ({"warmup_steps": -1}, "`warmup_steps` is -1"),
        ({"adam_beta2": 1.0}, "`adam_beta2` is 1.0"),
        ({"schedule": "zigzag"}, "`schedule` is 'zigzag'"),
        ({"schedule": "reduce_lr_on_plateau"}, "`schedule` is 'reduce_lr_on_plateau'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LoopConfigError, match=message):
        LoopConfig(**{"steps": 1, **settings})


def test_what_is_trained_is_said_in_full(objective: Build, accelerator: Accelerator) -> None:
    own = objective()
    with pytest.raises(LoopConfigError, match="is empty"):
        TrainingLoop(accelerator, own, [], LoopConfig(steps=1))
    with pytest.raises(LoopConfigError, match="want gradients and are not in `parameters`"):
        TrainingLoop(accelerator, own, list(own.model.named_parameters())[1:], LoopConfig(steps=1))
