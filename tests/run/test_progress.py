"""Bars where lines stay, such as in a log file: whole lines, each news; and what other libraries show."""

import time

import pytest
import torch
from datasets import Dataset, load_from_disk
from transformers.utils import logging

from schubert_hf.run import provenance
from schubert_hf.run.memory import MemoryLimitError, explained
from schubert_hf.run.progress import lines_stay, map_rows, progress_bar, without_loading_bars


@pytest.fixture(autouse=True)
def _log_file(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert lines_stay()


def test_a_bar_is_whole_lines(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_MININTERVAL", "0.05")
    with progress_bar(None, None, "recovery", total=4, leave=True) as bar:
        for _ in range(4):
            time.sleep(0.06)
            bar.set_postfix({"mlm": "3.2"}, refresh=False)
            bar.update()
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    assert "\r" not in shown
    assert 1 <= len(lines) == len(set(lines)) <= 4
    assert all(line.startswith("recovery: ") and "/4 (" in line and line.endswith("mlm=3.2") for line in lines)


@pytest.mark.parametrize("setting", [{}, {"disable": True}])
def test_what_is_soon_over_or_turned_off_is_no_line(setting, capsys):
    assert list(progress_bar(None, range(3), "evaluating", **setting)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_examples_are_made_under_one_line(capsys):
    rows = Dataset.from_dict({"n": [1, 2]})
    assert map_rows(rows, lambda row: {"n": row["n"] + 1}, "Pairs")["n"][:] == [2, 3]
    assert capsys.readouterr().err == "Pairs: 2 rows\n"


def add_one(row):
    return {"n": row["n"] + 1}


def test_examples_in_the_cache_are_those_of_the_same_code(tmp_path, monkeypatch):
    Dataset.from_dict({"n": [1, 2]}).save_to_disk(tmp_path / "rows")
    rows = load_from_disk(tmp_path / "rows")
    first, again = (map_rows(rows, add_one, "Pairs").cache_files for _ in range(2))
    assert first == again
    monkeypatch.setattr(provenance, "code_digest", lambda: "of another version")
    assert map_rows(rows, add_one, "Pairs").cache_files != first


def test_loading_shows_no_bar_and_the_setting_returns():
    before = logging.is_progress_bar_enabled()
    with without_loading_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() == before


def test_out_of_memory_says_how_to_go_on():
    lost = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB of which 1 MiB is free."
    )
    allowed = r"8 examples: CUDA out of memory. Tried to allocate 2.00 GiB. Give `--micro-batch-size` 4 .*`--resume`"
    with pytest.raises(MemoryLimitError, match=allowed), explained(8):
        raise torch.OutOfMemoryError(lost)
    with pytest.raises(MemoryLimitError, match="`--max-length`"), explained(1):
        raise MemoryError
