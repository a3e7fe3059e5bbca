"""The grid of embedding sizes and vocabularies as a user runs it: cells on disk, made once, and a table of them."""

import json
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "embedding_sizes.py"
sys.path.insert(0, str(SCRIPT.parent))

import embedding_sizes as example  # noqa: E402


@pytest.mark.slow
def test_cells_are_made_once_and_what_is_out_of_reach_says_so(monkeypatch, capsys, bert, text, tmp_path):
    dense, output = str(tmp_path / "dense"), tmp_path / "cells"
    SentenceTransformer(str(bert), device="cpu").save(dense)  # with mean pooling

    def run(*arguments):
        given = ["--model", dense, "--text", text, "--eval-text", text, "--output-dir", output, "--threads", "1"]
        given += ["--calibration-examples", "8", "--max-length", "16", *arguments]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given)])
        example.main()
        return capsys.readouterr().out

    run("--targets", "80", "--vocabulary", "all")
    made = output / "80-hfakv-all" / "figures.json"
    first = made.stat().st_mtime_ns
    printed = run("--targets", "80,1", "--vocabulary", "all")
    assert made.stat().st_mtime_ns == first
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
    assert [row[:4] for row in rows[2:]] == [
        ["dense", "", "", ""],
        ["80 %", "all", "with e", rows[3][3]],
        ["80 %", "all", "without", rows[4][3]],
        ["1 %", "all", "with e", "not reachable"],
        ["1 %", "all", "without", "not reachable"],
    ]
    assert len({len(row) for row in rows}) == 1
    cells = {path.parent.name: json.loads(path.read_text()) for path in output.glob("*/figures.json")}
    whole = sum(x.numel() for x in SentenceTransformer(dense, device="cpu").parameters())
    for kind in ("hfakve", "hfakv"):
        assert cells[f"80-{kind}-all"]["parameters"] <= 0.8 * whole
        assert 0 < cells[f"80-{kind}-all"]["figures"]["text"]["rank_correlation"] < 1
        assert "is below" in cells[f"1-{kind}-all"]["unreachable"]
