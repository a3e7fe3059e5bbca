"""A run keeps its best model, goes on bit by bit where it stopped, and survives a kill at any moment."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from safetensors.torch import load_file
from watching import spoiling

from schubert_hf.evaluation import finetuning
from schubert_hf.evaluation.encoding import TaskCollator, encode
from schubert_hf.evaluation.finetuning import Finetuning, finished
from schubert_hf.evaluation.finetuning_config import FinetuningConfig
from schubert_hf.evaluation.loading import load_for_task, load_tokenizer
from schubert_hf.evaluation.objectives import ClassificationObjective
from schubert_hf.run import session
from schubert_hf.run.checkpoint import CheckpointError, list_checkpoints
from schubert_hf.run.interrupt import Interrupted
from schubert_hf.run.output import OutputFolderError
from schubert_hf.training.loop_config import LoopConfigError
from schubert_hf.training.step import NonFiniteLossError

CONFIG = FinetuningConfig(batch_size=4, epochs=2, learning_rate=1e-3, eval_steps=3, save_steps=2)
SCORES = {3: 0.5, 6: 0.75, 9: 0.75, 10: 0.25}
SETTINGS = {"task": "reviews", "learning_rate": 1e-3}


def make(encoder: Path, output: Path, config: FinetuningConfig = CONFIG, **changes: Any) -> Finetuning:
    """A run over 20 sentences, of 10 steps; `scores` stands for an evaluation, beside the sum of all weights."""
    words = changes.pop("words", 8)
    rows = {
        "sentence": [f"w{n % words} {'w50 ' * (n % 3)}w{n % words}" for n in range(20)],
        "label": [n % 2 for n in range(20)],
    }
    tokenizer = load_tokenizer(encoder)
    scores, accelerator = changes.pop("scores", SCORES), changes.pop("accelerator", None)
    model = load_for_task(encoder, "SequenceClassification", ("bad", "good"))
    run: Finetuning

    def evaluate() -> dict[str, dict[str, float]]:
        weights = sum(float(value.detach().double().sum()) for value in model.parameters())
        return {"validation": {"score": scores[run.loop.step], "weights": weights}}

    run = Finetuning(
        accelerator or Accelerator(cpu=True),
        ClassificationObjective(model),
        tokenizer,
        encode(Dataset.from_dict(rows), ["sentence"], tokenizer, max_length=16),
        TaskCollator(tokenizer),
        config,
        **{"seed": 0, "evaluate": evaluate, "output": output, "settings": SETTINGS, **changes},
    )
    return run


def assert_same(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    records = [json.loads((folder / "finetuning.json").read_text()) for folder in (one, other)]
    for record in records:
        record.pop("seconds")
    assert records[0] == records[1]


@pytest.fixture(scope="module")
def whole(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "run"
    make(encoder, folder).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


def test_the_best_model_is_what_stays(whole):
    record = json.loads((whole / "finetuning.json").read_text())
    assert [(one["step"], one["metrics"]["validation"]["score"]) for one in record["evaluations"]] == list(
        SCORES.items()
    )
    assert record["best_step"] == 6  # of equal ones the earlier
    kept = sum(float(value.double().sum()) for value in load_file(whole / "model.safetensors").values())
    assert kept == pytest.approx(record["metrics"]["validation"]["weights"], rel=1e-6)
    assert {path.name for path in whole.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not {"checkpoints", "best", ".finished"} & {path.name for path in whole.iterdir()}


def test_losses_fall(encoder, tmp_path):
    config = FinetuningConfig(batch_size=4, epochs=8, learning_rate=1e-2)
    result = make(encoder, tmp_path, config, scores=dict.fromkeys(range(5, 45, 5), 0.0)).run()
    losses = [record["train_loss"] for record in result.evaluations]
    assert len(losses) == 8  # one an epoch
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("step", [1, 3, 6, 7, 9])
def test_a_signal_leaves_a_checkpoint_that_goes_on_bit_by_bit(step, whole, encoder, tmp_path):
    run = make(encoder, tmp_path / "run")
    train = run.loop._train_step

    def interrupted(batches):
        if run.loop.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(batches)

    run.loop._train_step = interrupted
    with pytest.raises(Interrupted) as stop:
        run.run()
    assert stop.value.exit_code == 143
    assert [folder.name for folder in list_checkpoints(tmp_path / "run" / "checkpoints")] == [f"step-{step:08d}"]
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.rand(5)
    make(encoder, tmp_path / "run").run(resume=True)
    assert_same(tmp_path / "run", whole)


def test_a_signal_in_the_last_step_ends_what_would_come_after(whole, encoder, tmp_path):
    run = make(encoder, tmp_path / "run")
    evaluate = run.evaluate

    def interrupted():
        if run.loop.step == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate()

    run.evaluate = interrupted
    with pytest.raises(Interrupted):
        run.run()
    assert_same(tmp_path / "run", whole)


def test_the_model_is_the_one_that_the_record_speaks_of(encoder, tmp_path, monkeypatch):
    """Killed when better weights were there and no checkpoint of them; run again, on a GPU, they are not better."""

    class Killed(BaseException):
        pass

    saved = session.save_checkpoint

    def killed(target, *arguments, **named):
        if target.name == "step-00000006":
            raise Killed
        saved(target, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(session, "save_checkpoint", killed)
        with pytest.raises(Killed):
            make(encoder, tmp_path).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    result = make(encoder, tmp_path, scores={**SCORES, 6: 0.4, 9: 0.4}).run(resume=True)
    assert result.best_step == 3
    kept = sum(float(value.double().sum()) for value in load_file(tmp_path / "model.safetensors").values())
    assert kept == pytest.approx(result.metrics["validation"]["weights"], rel=1e-9)


def test_a_full_disk_is_one_clear_error(encoder, tmp_path, monkeypatch):
    def full(target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finetuning, "atomic_folder", full)
    with pytest.raises(CheckpointError, match=r"best weights cannot be written .*No space left"):
        make(encoder, tmp_path).run()


# What a kill -9 leaves: the work stops right before one of the calls that write.
KILLS = [("save_checkpoint", n) for n in (1, 2, 4, 7)] + [("atomic_folder", n) for n in (1, 2)]
KILLS += [("result_files", 1), ("write_json", 1)]


@pytest.mark.parametrize(("call", "number"), KILLS)
def test_a_kill_at_any_moment_loses_nothing(call, number, whole, encoder, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    calls = []
    owner = session if call == "save_checkpoint" else finetuning
    original = getattr(owner, call)

    def killed(*arguments, **named):
        calls.append(arguments)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, killed)
        with pytest.raises(Killed):
            make(encoder, tmp_path / "run").run()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert finished(tmp_path / "run", SETTINGS) is None
    make(encoder, tmp_path / "run").run(resume=True)
    assert_same(tmp_path / "run", whole)


def test_other_settings_are_refused_by_name(encoder, tmp_path):
    with pytest.raises(KeyError):  # from the evaluation after step 6
        make(encoder, tmp_path / "run", scores={3: 0.1}).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
        make(encoder, tmp_path / "run").run()
    for changes, words in (
        ({"settings": {**SETTINGS, "learning_rate": 2e-3}}, r"`learning_rate` was 0\.001 and is 0\.002"),
        ({"settings": {**SETTINGS, "task": "rte"}}, "`task` was 'reviews' and is 'rte'"),
        ({"seed": 1}, "`seed` was 0 and is 1"),
    ):
        with pytest.raises(CheckpointError, match=words):
            make(encoder, tmp_path / "run", **changes).run(resume=True)


def test_a_finished_run_is_known_again(encoder, whole, tmp_path):
    result = finished(whole, SETTINGS)
    assert result is not None
    assert (result.best_step, result.steps) == (6, 10)
    assert finished(tmp_path, SETTINGS) is None
    with pytest.raises(CheckpointError, match="`task` was 'reviews' and is 'rte'"):
        finished(whole, {"task": "rte"})
    with pytest.raises(CheckpointError, match="no record of its fine-tuning"):
        finished(encoder, SETTINGS)
    with pytest.raises(OutputFolderError, match="already holds a model"):
        make(encoder, whole).run()


def test_what_is_no_number_is_never_the_best(encoder, tmp_path):
    nan = float("nan")
    assert make(encoder, tmp_path, scores={3: nan, 6: -0.5, 9: nan, 10: -0.6}).run().best_step == 6


def test_a_loss_that_is_no_number_stops_the_run(encoder, tmp_path):
    run = make(encoder, tmp_path)
    with torch.no_grad():
        run.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="Step 0"):
        run.run()
    assert not (tmp_path / "config.json").exists()


def test_one_bad_step_halves_the_learning_rate(encoder, tmp_path, caplog):
    accelerator = spoiling(1, number=4)
    result = make(encoder, tmp_path, accelerator=accelerator).run()
    assert "Resuming from step 4 with half the learning rate" in caplog.text  # of the last checkpoint
    first, second = (step.rate for step in accelerator.steps if step.number == 4)
    assert second == pytest.approx(first / 2)
    assert result.halved
    assert [entry["step"] for entry in result.evaluations] == [3, 6, 9, 10]
    assert json.loads((tmp_path / "finetuning.json").read_text())["halved"]


def test_other_examples_of_the_same_number_are_refused(encoder, tmp_path):
    with pytest.raises(KeyError):
        make(encoder, tmp_path / "run", scores={3: 0.1}).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    run = make(encoder, tmp_path / "run", words=5)
    with pytest.raises(CheckpointError, match="`digest` was "):
        run.run(resume=True)


def test_steps_come_from_epochs():
    found = FinetuningConfig(batch_size=32, epochs=2.5, warmup=0.25).loop(100, seed=3)
    assert (found.steps, found.warmup_steps, found.seed) == (8, 2, 3)
    assert FinetuningConfig(steps=7).loop(100, seed=0).steps == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "`epochs` is 0"),
        ({"epochs": float("inf")}, "`epochs` is inf"),
        ({"warmup": 1.5}, "`warmup` is 1.5"),
        ({"save_steps": 0}, "`save_steps` is 0"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"schedule": "zigzag"}, "`schedule` is 'zigzag'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(LoopConfigError, match=words):
        FinetuningConfig(**settings)
