"""What a run over a weekend meets: losses that are not finite, a full disk, too little memory, several sizes."""

import errno
import json
import logging

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from oracles import make_examples
from transformers import AutoModelForMaskedLM
from watching import WatchedAccelerator, spoiling

from schubert_hf.cost import BudgetError
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run import checkpoint, memory
from schubert_hf.run.checkpoint import CheckpointError, newest_checkpoint
from schubert_hf.run.memory import MemoryLimitError
from schubert_hf.run.output import OutputFolderError
from schubert_hf.run.processes import ProcessesError, make_accelerator
from schubert_hf.training.step import NonFiniteLossError


@pytest.mark.parametrize("phase", ["alphas", "weights"])
def test_a_loss_that_is_not_finite_halves_the_learning_rate_once(make_pruner, tmp_path, caplog, phase):
    options = {"method": "schubert", "rounds": 2, "alpha_steps": 6, "recovery_steps": 6, "save_steps": 2}
    accelerator = spoiling(1, number=3, phase=phase)
    with caplog.at_level(logging.WARNING):
        result = make_pruner(
            output_dir=tmp_path, accelerator=accelerator, recovery_learning_rate=1e-3, **options
        ).prune()
    assert "gradient norm nan" in caplog.text
    assert "Resuming from step 2 with half the learning rate" in caplog.text  # that of the last checkpoint
    name = {"alphas": "alphas", "weights": "recovery"}[phase]
    assert [record.halved for record in result.rounds] == [[name]] * 2
    # Once before, once after; and in the second round the halved rate from its first step on.
    whole, *halved = [step.rate for step in accelerator.steps if (step.phase, step.number) == (phase, 3)]
    assert halved == [pytest.approx(whole / 2)] * 2
    assert json.loads((tmp_path / "pruning.json").read_text())["rounds"][0]["halved"] == [name]


def test_going_back_is_exact(make_pruner):
    """The first steps after going back are those of a run that had half the rate from there on."""
    options = {"rounds": 1, "recovery_steps": 6, "recovery_warmup_steps": 0, "save_steps": 2, "teacher_weight": 0.0}
    spoiled = make_pruner(accelerator=spoiling(1, number=3), **options).prune()

    def from_step_two(step):
        if step.number >= 2:
            for group in halving.optimizer.param_groups:
                group["lr"] /= 2

    halving = WatchedAccelerator(from_step_two)
    expected = make_pruner(accelerator=halving, **options).prune()
    assert len(halving.steps) == 6
    theirs = expected.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in spoiled.model.state_dict().items())


def test_a_second_time_it_is_an_error_with_a_way_out(make_pruner, tmp_path):
    message = r"Half the learning rate did not help.*lower `recovery_learning_rate`"
    with pytest.raises(NonFiniteLossError, match=message):
        make_pruner(output_dir=tmp_path, recovery_steps=6, save_steps=2, accelerator=spoiling(2, number=3)).prune()
    assert newest_checkpoint(tmp_path / "checkpoints").name == "round-000-recovery-0000002"
    assert not (tmp_path / "config.json").exists()


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(make_pruner, tmp_path, monkeypatch):
    save, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 4:  # the optimizer of steps 0, 2, 4 and 6
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path)

    options = {"rounds": 1, "recovery_steps": 9, "save_steps": 2}
    whole = make_pruner(output_dir=tmp_path / "whole", **options).prune()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*make room and resume"):
            make_pruner(output_dir=tmp_path / "full", **options).prune()
    assert newest_checkpoint(tmp_path / "full" / "checkpoints").name == "round-000-recovery-0000004"
    resumed = make_pruner(output_dir=tmp_path / "full", **options).prune(resume=True)
    assert all(
        torch.equal(tensor, whole.model.state_dict()[name]) for name, tensor in resumed.model.state_dict().items()
    )


@pytest.mark.parametrize("keep", [1, 3, None])
def test_as_many_checkpoints_stay_as_wanted(make_pruner, tmp_path, keep):
    make_pruner(output_dir=tmp_path, recovery_steps=4, save_steps=1, keep_checkpoints=keep).prune()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert len(names) == (keep or 10)  # per round: after the cut, three steps, the round
    assert names[-1] == "round-002"


def test_several_targets_leave_a_model_each(make_pruner, tmp_path):
    seen = []
    pruner = make_pruner(output_dir=tmp_path, target="80%,70%,60%", rounds=2, on_result=seen.append)
    result = pruner.prune()
    assert [path.name for path in pruner.folders] == ["80pct", "70pct", "60pct"]
    assert [len(one.rounds) for one in seen] == [2, 4, 6]
    for target, one in zip((0.8, 0.7, 0.6), seen, strict=True):
        model = AutoModelForMaskedLM.from_pretrained(one.output_dir)
        record = json.loads((one.output_dir / "pruning.json").read_text())
        assert model.config.filter_sizes == record["rounds"][-1]["shape"]["filter_sizes"]
        assert target - 0.06 < record["size"] / record["source_size"] <= target
    limits = [round(record.budget / result.source_size, 6) for record in result.rounds]
    assert limits == [0.9, 0.8, 0.75, 0.7, 0.65, 0.6]
    assert result.output_dir == tmp_path / "60pct"
    with pytest.raises(OutputFolderError, match="already holds a model"):
        make_pruner(output_dir=tmp_path, target="80%,70%,60%", rounds=2)


def test_the_last_of_several_is_that_of_the_way_there(make_pruner, tmp_path):
    """The same rounds to the same sizes are the same run, whether the sizes between are wanted or not."""
    several = make_pruner(output_dir=tmp_path, target="80%,60%", rounds=1).prune()
    one = make_pruner(target="60%", rounds=2).prune()
    assert several.plans == one.plans
    assert all(torch.equal(x, one.model.state_dict()[name]) for name, x in several.model.state_dict().items())


@pytest.mark.parametrize(
    ("target", "message"),
    [("60%,80%", "`target` is '60%,80%', where '80%' is not below '60%'"), ("80%,,60%", "give a size like")],
)
def test_targets_in_disorder_are_refused(make_pruner, tmp_path, target, message):
    with pytest.raises(BudgetError, match=message):
        make_pruner(output_dir=tmp_path, target=target)


def test_several_targets_want_a_folder(make_pruner):
    with pytest.raises(PruningConfigError, match="several sizes, and `output_dir` is None"):
        make_pruner(target="80%,60%")


def test_too_little_memory_is_said_before_any_work(make_pruner, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("schubert_hf.run.memory.device_memory", lambda *_: (10**5, 2 * 10**5))
    with pytest.raises(MemoryLimitError, match=r"does not fit.*"):
        make_pruner(output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("schubert_hf.run.memory.device_memory", lambda *_: (10**5, 10**9))
    with caplog.at_level(logging.WARNING, logger=memory.__name__):
        make_pruner()
    assert "The run may run out of memory" in caplog.text


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_model_in_pieces_is_refused_with_the_way_out(make_pruner, monkeypatch, kind):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ProcessesError, match=f"asks for {kind}, which shares one model.*MULTI_GPU"):
        make_accelerator()
    monkeypatch.delenv(f"ACCELERATE_USE_{kind}")
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = DistributedType[kind]
    with pytest.raises(ProcessesError, match=f"asks for {kind}"):
        make_pruner(accelerator=accelerator)


@pytest.mark.parametrize("by", ["micro_batch_size", "accelerate"])
def test_accumulated_is_at_once(make_pruner, by):
    """Batches of 8 at once, and of 2 four times over: the same plan, and weights equal to rounding."""
    whole = make_pruner(method="schubert", alpha_steps=3, recovery_steps=3).prune()
    options = {"micro_batch_size": 2} if by == "micro_batch_size" else {}
    accelerator = WatchedAccelerator(gradient_accumulation_steps=1 if options else 4)
    parts = make_pruner(method="schubert", alpha_steps=3, recovery_steps=3, accelerator=accelerator, **options).prune()
    assert {step.micro_batches for step in accelerator.steps} == {4}
    assert parts.plans == whole.plans
    for name, tensor in parts.model.state_dict().items():
        torch.testing.assert_close(tensor, whole.model.state_dict()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_bf16_trains_and_gives_back_single_precision(make_pruner, method):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    result = make_pruner(method=method, accelerator=accelerator).prune()
    exact = make_pruner(method=method).prune()
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert result.provenance["precision"] == "bf16"
    for ours, theirs in zip(result.rounds, exact.rounds, strict=True):
        assert ours.after_recovery["loss"] == pytest.approx(theirs.after_recovery["loss"], rel=0.02)


def test_trackers_are_told_of_every_step(make_pruner, tmp_path):
    accelerator, told = Accelerator(cpu=True), []
    accelerator.trackers = ["one"]
    accelerator.log = lambda values, step=None, **_: told.append((step, values))
    make_pruner(method="schubert", accelerator=accelerator, train_dataset=make_examples(50)).prune()
    alphas = [(step, values) for step, values in told if "alphas/grad_norm" in values]
    recovery = [(step, values) for step, values in told if "recovery/grad_norm" in values]
    assert [step for step, _ in alphas] == [0, 1, 4, 5]
    assert [step for step, _ in recovery] == [2, 3, 6, 7]
    assert all(values["alphas/drift"] >= values["alphas/drift_f"] > 0 for _, values in alphas)
    assert [step for step, values in told if "round/loss" in values] == [4, 8]
