"""A folder is whole or not there, whatever happens while it is written."""

import errno
import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from schubert_hf import SchuBertForPreTraining
from schubert_hf.run import checkpoint as module
from schubert_hf.run.checkpoint import (
    MODEL,
    OPTIMIZER,
    STATE,
    CheckpointError,
    atomic_folder,
    list_checkpoints,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from schubert_hf.run.output import OutputFolderError, check_output_folder, halved, result_files
from schubert_hf.training.objective import PretrainingObjective


@pytest.fixture
def model(objective: Callable[..., PretrainingObjective]) -> SchuBertForPreTraining:
    return objective().model


def in_child(action: Callable[[], None]) -> int:
    """Runs `action` in a forked process; returns how that ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it forks beside torch's threads, and uses none of them
        child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as folder:
        (folder / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "target", "old")
    (target / "other").write_text("old")
    with atomic_folder(target) as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "target", "old")

    def write() -> None:
        with atomic_folder(target) as folder:
            (folder / "file").write_text("half")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write()
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_kill_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "target", "old")

    def write() -> None:
        with atomic_folder(target) as folder:
            (folder / "file").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(write) == -signal.SIGKILL
    assert (target / "file").read_text() == "old"
    with atomic_folder(target) as folder:  # what the killed one left is cleared away
        assert not list(folder.iterdir())
        (folder / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_kill_between_the_renames_is_mended(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "target", "old")
    target.rename(tmp_path / ".target.replaced")
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    assert (target / "file").read_text() == "old"


def test_only_safetensors_and_json(tmp_path: Path, model: SchuBertForPreTraining) -> None:
    save_checkpoint(tmp_path / "one", model, state={"step": 1}, optimizer={"a.step": torch.tensor(3.0)})
    files = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert files == {f"{MODEL}/config.json", f"{MODEL}/model.safetensors", OPTIMIZER, STATE}
    assert load_state(tmp_path / "one") == {"step": 1}
    assert load_optimizer(tmp_path / "one") == {"a.step": torch.tensor(3.0)}
    again = SchuBertForPreTraining.from_pretrained(tmp_path / "one" / MODEL)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_oldest_go_and_torn_ones_are_passed_over(tmp_path: Path, model: SchuBertForPreTraining) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / f"step-{step}", model, state={"step": step}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-2", "step-3"]
    folder_with(tmp_path / "step-4", "no state")
    (folder_with(tmp_path / "step-5", "torn state") / STATE).write_text('{"step": ')
    (folder_with(tmp_path / "step-6", "foreign state") / STATE).write_text("[1]")
    (folder_with(tmp_path / ".step-7.writing", "being written") / STATE).write_text("{}")
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-3"
    for name in ("step-4", "step-5", "step-6", "step-8"):
        with pytest.raises(CheckpointError, match="no whole checkpoint"):
            load_state(tmp_path / name)
    save_checkpoint(tmp_path / "step-8", model, state={}, keep=2)
    assert not (tmp_path / ".step-7.writing").exists()


def test_nothing_there(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    assert load_optimizer(tmp_path) == {}


def test_torn_optimizer(tmp_path: Path) -> None:
    (tmp_path / OPTIMIZER).write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_optimizer(tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, model: SchuBertForPreTraining, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save_checkpoint(tmp_path / "step-1", model, state={"step": 1}, optimizer={"a.step": torch.ones(())}, keep=1)

    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(module, "save_file", refuse)
    for name in ("step-1", "step-2"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_checkpoint(tmp_path / name, model, state={"step": 2}, optimizer={"a.step": torch.zeros(())}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert load_state(tmp_path / "step-1") == {"step": 1}
    assert load_optimizer(tmp_path / "step-1") == {"a.step": torch.ones(())}


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"name": "Zoë"})
    with pytest.raises(TypeError):
        write_json(path, {"name": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Zoë"}
    assert "Zoë" in path.read_text(encoding="utf-8")


def test_output_folder_with_a_model_is_refused(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new")
    write_json(tmp_path / "new" / "config.json", {})  # which makes the folder
    with pytest.raises(OutputFolderError, match="already holds a model"):
        check_output_folder(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot be written"):
        check_output_folder(tmp_path / "file" / "deep")


def test_result_files_come_together(tmp_path: Path) -> None:

    def write() -> None:
        with result_files(tmp_path) as folder:
            (folder / "config.json").write_text("{}")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write()
    assert not list(tmp_path.iterdir())
    with result_files(tmp_path) as folder:
        (folder / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_halved_weights_open_in_full_precision(tmp_path: Path, model: SchuBertForPreTraining) -> None:
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", state_dict=halved(model))
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.75 * full  # headers do not shrink
    again = SchuBertForPreTraining.from_pretrained(tmp_path / "half")
    assert again.dtype == model.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
