"""A session keeps what a run cannot do without: its parts, the gradient scaler, the order to refuse another run."""

import json
import logging
import os
import signal
import subprocess
import sys
import types

import pytest
import torch
from accelerate import Accelerator
from transformers import BertConfig, BertModel

from schubert_hf.run import session as module
from schubert_hf.run.checkpoint import CheckpointError, list_checkpoints, load_model
from schubert_hf.run.interrupt import Interrupted
from schubert_hf.run.output import OutputFolderError
from schubert_hf.run.session import Part, Session, find_checkpoint

TINY = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 5}


class Counter(Part):
    """A number, and a tensor."""

    def __init__(self):
        self.number, self.tensor = 0, torch.zeros(3)

    def state(self):
        return {"number": self.number}

    def tensors(self):
        return {"of/it": self.tensor}

    def load_state(self, state, tensors):
        self.number, self.tensor = state["number"], tensors["of/it"]


class Scaler:
    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


@pytest.fixture
def open_session(tmp_path):
    def build(*, scale=None, settings=None, **options):
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = Scaler(scale) if scale is not None else None
        parts = {"one": Counter(), "two": Counter()}
        settings = settings or {"seed": 0, "sizes": (1, 2)}
        session = Session(
            accelerator,
            tmp_path / "checkpoints",
            parts,
            settings=settings,
            name=lambda: f"step-{parts['one'].number}",
            **options,
        )
        torch.manual_seed(0)
        session.model = BertModel(BertConfig(**TINY))
        return session

    return build


def test_parts_scaler_and_model_come_back(open_session):
    first = open_session(scale=1024.0)
    assert first.open(resume=True) is None
    first.parts["one"].number, first.parts["two"].number = 3, 4
    first.parts["two"].tensor = torch.tensor([1.0, 2.0, 3.0])
    with torch.no_grad():
        first.model.pooler.dense.bias += 1
    first.save()

    second = open_session(scale=1.0)
    checkpoint = second.open(resume=True)
    assert checkpoint.name == "step-3"
    assert [part.number for part in second.parts.values()] == [3, 4]
    assert second.parts["two"].tensor.tolist() == [1, 2, 3]
    assert second.parts["one"].tensor.tolist() == [0, 0, 0]
    assert second.accelerator.scaler.scale == 1024
    loaded = load_model(checkpoint, second.model).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in first.model.state_dict().items())


def test_another_run_is_refused_and_every_difference_named(open_session):
    open_session().save()
    with pytest.raises(CheckpointError, match=r"holds checkpoints of an earlier run\. Resume it"):
        open_session().open(resume=False)
    other = open_session(settings={"seed": 1, "sizes": [1, 3]})
    with pytest.raises(CheckpointError, match=r"`seed` was 0 and is 1; `sizes` was \[1, 2\] and is \[1, 3\]"):
        other.open(resume=True)


@pytest.mark.parametrize("state", [{}, {"settings": [], "one": 0}, {"settings": {"seed": 0, "sizes": [1, 2]}}])
def test_a_foreign_checkpoint_is_refused(open_session, tmp_path, state):
    open_session().save()
    (tmp_path / "checkpoints" / "step-0" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="is no checkpoint of such a run"):
        open_session().open(resume=True)


def test_other_versions_are_a_warning(open_session, monkeypatch, caplog):
    monkeypatch.setattr(module, "versions", lambda: {"torch": "1.0"})
    open_session().save()
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING):
        open_session().open(resume=True)
    assert "torch 1.0 -> " in caplog.text
    assert "Resuming from step-0" in caplog.text


def test_old_checkpoints_are_removed(open_session, tmp_path):
    session = open_session(keep=2)
    for number in range(4):
        session.parts["one"].number = number
        session.save()
    assert [folder.name for folder in list_checkpoints(tmp_path / "checkpoints")] == ["step-2", "step-3"]


def test_a_signal_waits_until_a_checkpoint_is_whole(open_session, tmp_path, monkeypatch):

    write = module.save_checkpoint

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*arguments, **options)

    monkeypatch.setattr(module, "save_checkpoint", interrupted)
    session = open_session()
    with pytest.raises(Interrupted), session.running():
        session.save()
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 1


def test_one_run_at_a_time_writes_to_a_folder(open_session, tmp_path):
    with open_session().running():
        for _ in range(2):  # the first refusal leaves the lock where it is
            with pytest.raises(OutputFolderError, match="Another run writes to"), open_session().running():
                pass
    with open_session().running():
        open_session().save()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_lock_ends_with_its_process(open_session, tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from schubert_hf.run.output import only_writer
with only_writer(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / ".lock").exists()
    with open_session().running():
        pass
    assert not list(tmp_path.iterdir())


def test_the_main_process_decides(tmp_path):
    """Another process looks for nothing itself: what it finds is what it was sent."""
    other = types.SimpleNamespace(is_main_process=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "schubert_hf.run.processes.broadcast_object_list", lambda shared: shared.__setitem__(0, "step-7")
        )
        assert find_checkpoint(other, tmp_path, resume=True) == tmp_path / "step-7"
