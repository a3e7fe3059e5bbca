"""The benchmark of pruning without training as a user runs it: cells on disk, made once, and a table of them."""

import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "retraining_free.py"
sys.path.insert(0, str(SCRIPT.parent))

import retraining_free as example  # noqa: E402

QUICK = ["--examples", "8", "--batch-size", "4", "--eval-examples", "8", "--max-length", "24", "--threads", "1"]


@pytest.fixture
def run(monkeypatch, capsys, bert, text, tmp_path):
    """Calls the script in this process; returns what it printed."""

    def call(*arguments):
        given = ["--model", bert, "--text", text, "--eval-text", text, "--output-dir", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given), *QUICK, *map(str, arguments)])
        capsys.readouterr()
        example.main()
        return capsys.readouterr().out

    return call


def test_all_methods_meet_the_flops_and_cells_are_made_once(run, tmp_path):
    run("--sizes", "60", "--methods", "kwon")
    made = tmp_path / "out" / "cells" / "kwon-60.json"
    first = made.stat().st_mtime_ns
    printed = run("--sizes", "60,45")
    assert made.stat().st_mtime_ns == first
    cells = {path.stem: json.loads(path.read_text()) for path in made.parent.glob("*.json")}
    expected = {f"{name}-{size}" for name in ("auto", "kwon", "k-prune") for size in (60, 45)}
    assert set(cells) == {"dense-100", *expected}
    for name in expected:
        size = int(name.rpartition("-")[2])
        assert 0.8 * size / 100 < cells[name]["flops"] / cells["dense-100"]["flops"] <= size / 100
        assert cells[name]["scores"]["mlm"] > 0
        assert f"--sizes {size}" in cells[name]["command"]
        assert cells[name]["machine"]["threads"] == 1
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 1 + 6
    assert rows[2].startswith("| 100 % | dense | 100.0 % |")


def test_the_default_may_be_held_to_some_kinds_and_to_parameters(run, tmp_path):
    run("--cost", "parameters", "--sizes", "80", "--methods", "auto,auto-fkv")
    cells = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").glob("auto*.json")]
    assert len(cells) == 2
    dense = json.loads((tmp_path / "out" / "cells" / "dense-100.json").read_text())
    for cell in cells:
        assert cell["parameters"] <= 0.8 * dense["parameters"]
        if cell["method"] == "auto-fkv":
            assert cell["shape"]["head_counts"] == dense["shape"]["head_counts"]
            assert cell["shape"]["hidden_sizes"] == dense["shape"]["hidden_sizes"]
    with pytest.raises(SystemExit, match="know of FLOPs only"):
        run("--cost", "parameters", "--sizes", "80", "--methods", "kwon")


def test_cells_of_other_settings_are_refused(run):
    run("--sizes", "60", "--methods", "kwon")
    with pytest.raises(SystemExit, match="was made with another `seed`"):
        run("--sizes", "60", "--methods", "kwon", "--seed", "1")


def test_a_size_out_of_reach_is_a_row():
    dense = {"method": "dense", "percent": 100, "flops": 8.0, "parameters": 9, "scores": {"mlm": 1.0}}
    dense |= {
        "command": "x",
        "settings": {"seed": 0, "cost": "flops"},
        "machine": {"processor": "p", "cores": 1, "threads": 1},
    }
    dense["machine"]["system"] = "Linux"
    lines = example.table([dense, {"method": "kwon", "percent": 1, "unreachable": "too small"}]).splitlines()
    assert lines[2] == "| 100 % | dense | 100.0 % | 9 | 1.0000 |  |"
    assert lines[3] == "| 1 % | kwon | not reachable |  |  |  |"


def test_other_methods_are_refused():
    with pytest.raises(ValueError, match="`methods` has taylor; allowed is auto, kwon, k-prune"):
        example.Arguments(methods="taylor")
    with pytest.raises(ValueError, match="percentages below 100"):
        example.Arguments(sizes="100")
