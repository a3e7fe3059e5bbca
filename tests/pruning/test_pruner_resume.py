"""A run that was killed between two rounds and resumed is, bit for bit, the run that was not."""

import json
import os
import shutil
import signal

import pytest
import torch
from oracles import make_examples, same_weights, untimed
from transformers import DataCollatorForLanguageModeling
from watching import WatchedAccelerator, WatchedObjective

from schubert_hf import SchuBertForPreTraining
from schubert_hf.run.checkpoint import CheckpointError, newest_checkpoint
from schubert_hf.run.interrupt import Interrupted


def dying_in_round_two(folder):
    """An objective that lets the run die at the first batch that is read for the second cut."""

    def read(*_):
        if (folder / "checkpoints" / "round-001").exists():
            raise KeyboardInterrupt

    return lambda model: WatchedObjective(model, read)


def signalled(number, taken):
    """An accelerator that sends the process a signal in one step of all."""
    return WatchedAccelerator(lambda step: os.kill(os.getpid(), number) if step.taken == taken else None)


@pytest.mark.parametrize("collator", ["ours", "of transformers"])
def test_resumed_is_uninterrupted(make_pruner, tiny, tokenizer, tmp_path, collator):
    def build(folder, **options):
        torch.manual_seed(0)
        model = SchuBertForPreTraining(tiny(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1))
        if collator != "ours":
            options["data_collator"] = DataCollatorForLanguageModeling(tokenizer)
        return make_pruner(model, tmp_path / folder, rounds=3, dimensions="auto", **options)

    whole = build("whole").prune()
    with pytest.raises(KeyboardInterrupt):
        build("resumed", objective=dying_in_round_two(tmp_path / "resumed")).prune()
    assert newest_checkpoint(tmp_path / "resumed" / "checkpoints").name == "round-001"
    (tmp_path / "resumed" / "checkpoints" / ".round-002.writing" / "model").mkdir(
        parents=True
    )  # torn: as if not there

    torch.rand(7)  # the new process has drawn other numbers before
    resumed = build("resumed").prune(resume=True)
    assert resumed.plans == whole.plans
    assert same_weights(resumed.model, whole.model)
    assert resumed.model.config.to_dict() == whole.model.config.to_dict()
    assert untimed(resumed) == untimed(whole)
    written = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "resumed")]
    assert written[0] == written[1]


def test_only_the_result_was_missing(make_pruner, tmp_path):
    def die(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pruner(output_dir=tmp_path, package=die).prune()
    assert not (tmp_path / "config.json").exists()
    result = make_pruner(output_dir=tmp_path).prune(resume=True)
    assert len(result.rounds) == 2
    assert (tmp_path / "config.json").exists()


def test_resume_without_checkpoints_begins(make_pruner, tmp_path):
    assert len(make_pruner(output_dir=tmp_path, rounds=1).prune(resume=True).rounds) == 1


@pytest.fixture(scope="module")
def stopped(make_pruner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        make_pruner(output_dir=folder, objective=dying_in_round_two(folder)).prune()
    return folder


@pytest.fixture
def one_round(stopped, tmp_path):
    """A folder with the checkpoint of one round of two."""
    return shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)


def test_checkpoints_are_not_run_over(make_pruner, one_round):
    with pytest.raises(CheckpointError, match=r"holds checkpoints of an earlier run\. Resume it \(`--resume`"):
        make_pruner(output_dir=one_round).prune()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 3}, "`rounds` was 2 and is 3"),
        ({"target": 0.5, "seed": 4}, "`seed` was 0 and is 4; `target` was '60%' and is 0.5"),
        (
            {"multiple_of": 4},
            "`multiple_of` was {'h': 8, 'f': 8, 'k': 8, 'v': 8, 'e': 8} and is "
            "{'h': 4, 'f': 4, 'k': 4, 'v': 4, 'e': 4}",
        ),
        ({"train_dataset": make_examples(99)}, r"`train_dataset` was \[100, '\w+'\] and is \[99, '\w+'\]"),
        ({"train_dataset": make_examples(100, seed=5)}, r"`train_dataset` was \[100, '\w+'\] and is \[100, '\w+'\]"),
        ({"eval_dataset": make_examples(24, seed=5)}, r"`eval_dataset` was \[24, '\w+'\] and is \[24, '\w+'\]"),
    ],
)
def test_other_settings_are_refused_by_name(make_pruner, one_round, options, message):
    with pytest.raises(CheckpointError, match=f"belongs to another run: {message}. Give the same settings"):
        make_pruner(output_dir=one_round, **options).prune(resume=True)


def test_another_model_is_refused(make_pruner, tiny, one_round):
    torch.manual_seed(1)
    with pytest.raises(CheckpointError, match=r"another run: `weights` was \d+ and is \d+"):
        make_pruner(SchuBertForPreTraining(tiny()), one_round).prune(resume=True)


def test_smaller_micro_batches_are_the_same_run(make_pruner, one_round):
    assert len(make_pruner(output_dir=one_round, micro_batch_size=4).prune(resume=True).rounds) == 2


@pytest.mark.parametrize("state", [{}, {"settings": [], "position": 0}, {"step": 3, "history": {}}])
def test_a_foreign_checkpoint_is_refused(make_pruner, one_round, state):
    (one_round / "checkpoints" / "round-001" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="is no checkpoint of such a run"):
        make_pruner(output_dir=one_round).prune(resume=True)


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_a_notebook_stops_a_pruner_and_resumes_the_same_object(make_pruner, tmp_path, method):
    """Ctrl-C at any step of any round, then `prune(resume=True)` once more; and once more from the beginning."""
    options = {"method": method, "rounds": 2, "alpha_steps": 3, "recovery_steps": 5, "save_steps": 2}
    whole = make_pruner(output_dir=tmp_path / "whole", **options).prune()
    for taken in (2, 7, 9 if method == "auto" else 10):
        accelerator = signalled(signal.SIGINT, taken)
        pruner = make_pruner(output_dir=tmp_path / f"stopped-{taken}", accelerator=accelerator, **options)
        with pytest.raises(Interrupted):
            pruner.prune()
        with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
            pruner.prune()
        resumed = pruner.prune(resume=True)
        assert resumed.plans == whole.plans
        assert same_weights(resumed.model, whole.model)
        assert untimed(resumed) == untimed(whole)


def test_a_resumed_recovery_has_the_seconds_before_it_was_stopped(make_pruner, tmp_path):
    """A thousand more are written into the checkpoint, which no run of these tests takes."""
    options = {"output_dir": tmp_path, "rounds": 1, "recovery_steps": 5}
    with pytest.raises(Interrupted):
        make_pruner(accelerator=signalled(signal.SIGTERM, 3), **options).prune()
    path = newest_checkpoint(tmp_path / "checkpoints") / "state.json"
    state = json.loads(path.read_text())
    seconds = state["progress"]["open"]["seconds"]
    assert seconds["recovery"] > 0
    seconds["recovery"] += 1000
    path.write_text(json.dumps(state))
    resumed = make_pruner(**options).prune(resume=True)
    assert resumed.rounds[0].seconds["recovery"] > seconds["recovery"]


def test_without_a_folder_the_same_object_begins_again(make_pruner):
    pruner = make_pruner(recovery_steps=3, accelerator=signalled(signal.SIGTERM, 0))
    with pytest.raises(Interrupted):
        pruner.prune()
    first, second = pruner.prune(resume=True), pruner.prune()
    assert first.plans == second.plans == make_pruner(recovery_steps=3).prune().plans
    assert same_weights(first.model, second.model)
