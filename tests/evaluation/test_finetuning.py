"""A run keeps its best weights, goes on bit by bit where it stopped, and survives a kill at any moment."""

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

import schubert_hf.evaluation.finetuning as finetuning
from schubert_hf import SchuBertForSequenceClassification
from schubert_hf.evaluation.encoding import encode, make_collator
from schubert_hf.evaluation.finetuning import Finetuning, FinetuningConfig, run_settings
from schubert_hf.evaluation.finetuning_result import read_finished
from schubert_hf.evaluation.loading import load_for_task, load_tokenizer
from schubert_hf.evaluation.objectives import ClassificationObjective
from schubert_hf.training.checkpoint import CheckpointError, list_checkpoints
from schubert_hf.training.interrupt import Interrupted
from schubert_hf.training.loop_config import LoopConfigError
from schubert_hf.training.step import NonFiniteLossError

CONFIG = FinetuningConfig(batch_size=4, epochs=2, learning_rate=1e-3, eval_steps=3, save_steps=2)
SCORES = {3: 0.5, 6: 0.75, 9: 0.75, 10: 0.25}


@pytest.fixture(autouse=True)
def _own_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def reviews(number: int) -> list[tuple[str, int]]:
    words = ["fine", "dull", "lovely", "awful", "warm", "cold", "witty", "empty"]
    return [(f"the {words[i % 8]} film was {'very ' * (i % 3)}{words[i % 8]}", (i + 1) % 2) for i in range(number)]


def make(bert: Path, output: Path, config: FinetuningConfig = CONFIG, **changes: Any) -> Finetuning:
    """A run over 20 sentences, of 10 steps; `scores` stands for an evaluation."""
    sentences, labels = zip(*reviews(20), strict=True)
    model = load_for_task(bert, SchuBertForSequenceClassification, labels=("bad", "good"), seed=config.seed)
    tokenizer = load_tokenizer(bert, model, max_length=16)
    data = Dataset.from_dict({"sentence": sentences, "label": labels})
    examples = encode(data, tokenizer, ["sentence"], max_length=16)
    run: Finetuning
    scores = changes.pop("scores", SCORES)

    def evaluate() -> dict[str, float]:
        weights = sum(float(value.detach().sum()) for value in run.model.parameters())
        return {"score": scores[run.loop.step], "weights": weights}

    given: dict[str, Any] = {"settings": {"task": "reviews"}, "best_metric": "score", "evaluate": evaluate, **changes}
    run = Finetuning(
        Accelerator(cpu=True),
        ClassificationObjective(model),
        tokenizer,
        examples,
        make_collator(tokenizer),
        config,
        output=output,
        **given,
    )
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = SchuBertForSequenceClassification.from_pretrained(folder)
    return model.state_dict()


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    records = [json.loads((folder / "finetuning.json").read_text()) for folder in (one, other)]
    for record in records:
        record.pop("seconds")
    assert records[0] == records[1]


@pytest.fixture(scope="module")
def whole(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    make(bert, folder).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


def test_the_best_weights_become_a_model_folder(whole: Path) -> None:
    record = json.loads((whole / "finetuning.json").read_text())
    assert [(item["step"], item["metrics"]["score"]) for item in record["evaluations"]] == list(SCORES.items())
    assert record["best_step"] == 6, "of equals the earlier"
    kept = sum(float(value.sum()) for value in weights(whole).values() if value.is_floating_point())
    assert kept == pytest.approx(record["metrics"]["weights"], rel=1e-5)
    assert {path.name for path in whole.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not (whole / "checkpoints").exists()
    assert not (whole / "best").exists()
    config = json.loads((whole / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}


def test_losses_fall(bert: Path, tmp_path: Path) -> None:
    config = FinetuningConfig(batch_size=4, epochs=8, learning_rate=3e-3)
    steps = dict.fromkeys(range(5, 45, 5), 0.0)
    result = make(bert, tmp_path, config, scores=steps).run()
    losses = [record["train_loss"] for record in result.evaluations]
    assert len(losses) == 8
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("step", [1, 3, 6, 7, 9])
def test_a_signal_leaves_a_checkpoint_that_goes_on_bit_by_bit(step: int, whole: Path, bert: Path, tmp_path) -> None:
    run = make(bert, tmp_path / "run")
    train = run.loop._train_step

    def interrupted(batches):
        if run.loop.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(batches)

    run.loop._train_step = interrupted
    with pytest.raises(Interrupted) as stop:
        run.run()
    assert stop.value.exit_code == 143
    assert [folder.name for folder in list_checkpoints(tmp_path / "run" / "checkpoints")][-1] == f"step-{step:08d}"
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.rand(5)
    make(bert, tmp_path / "run", resume=True).run()
    assert_same(tmp_path / "run", whole)


# What a kill -9 leaves: the work stops right before one of the calls that write.
@pytest.mark.parametrize("call", ["save_checkpoint", "write_json", "clear", "result_files"])
@pytest.mark.parametrize("number", [1, 4])
def test_a_kill_at_any_moment_loses_no_best_weights(call, number, whole, bert, tmp_path, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    calls = []
    original = getattr(finetuning, call)

    def killed(*arguments, **named):
        calls.append(arguments)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **named)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, call, killed)
        run = make(bert, output)
        if call == "save_checkpoint" or number == 1:
            with pytest.raises(Killed):
                run.run()
        else:
            run.run()  # there is one such call only
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = run_settings({"task": "reviews"}, CONFIG, 20, "score")
    if read_finished(output, settings) is None:
        make(bert, output, resume=True).run()
    assert_same(output, whole)


def test_other_settings_are_refused_by_name(bert: Path, tmp_path: Path, whole: Path) -> None:
    run = make(bert, tmp_path / "run", scores={3: 0.1})
    with pytest.raises(KeyError):
        run.run()
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(CheckpointError, match=r"holds checkpoints\. Go on with `resume`"):
        make(bert, tmp_path / "run")
    other = FinetuningConfig(batch_size=4, epochs=2, learning_rate=2e-3, eval_steps=3)
    with pytest.raises(CheckpointError, match=r"`learning_rate` = 0\.001, now 0\.002"):
        make(bert, tmp_path / "run", other, resume=True)
    with pytest.raises(CheckpointError, match="`task` = 'reviews', now 'rte'"):
        make(bert, tmp_path / "run", resume=True, settings={"task": "rte"})
    with pytest.raises(CheckpointError, match="`seed` = 0, now 1"):
        read_finished(
            whole, run_settings({"task": "reviews"}, FinetuningConfig(**{**vars(CONFIG), "seed": 1}), 20, "score")
        )
    finished = read_finished(whole, run_settings({"task": "reviews"}, CONFIG, 20, "score"))
    assert finished is not None
    assert finished.best_step == 6
    assert read_finished(tmp_path / "run", {}) is None


def test_a_foreign_model_is_not_taken_for_a_finished_run(bert: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a model, and no finetuning\.json"):
        read_finished(bert, {})


def test_what_is_not_a_number_is_never_the_best(bert: Path, tmp_path: Path) -> None:
    result = make(bert, tmp_path, scores={3: float("nan"), 6: -0.5, 9: float("nan"), 10: -0.6}).run()
    assert result.best_step == 6


def test_a_loss_that_is_no_number_stops_the_run(bert: Path, tmp_path: Path) -> None:
    run = make(bert, tmp_path)
    with torch.no_grad():
        run.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="Step 0"):
        run.run()
    assert not (tmp_path / "config.json").exists()


def test_steps_come_from_epochs() -> None:
    found = FinetuningConfig(batch_size=32, epochs=2.5).resolved(100)
    assert (found.steps, found.eval_steps, found.warmup_steps) == (8, 4, 1)
    given = FinetuningConfig(batch_size=32, steps=7, warmup_steps=2, eval_steps=5).resolved(100)
    assert (given.steps, given.eval_steps, given.warmup_steps) == (7, 5, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "`epochs` is 0"),
        ({"warmup_ratio": 1.5}, "`warmup_ratio` is 1.5"),
        ({"save_steps": 0}, "`save_steps` is 0"),
        ({"batch_size": 0}, "`batch_size` is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LoopConfigError, match=words):
        FinetuningConfig(**settings)
