"""The comparison of rerankers as a user runs it: trained, halved, compared; rows on disk are made once."""

import json
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "rerankers.py"
sys.path.insert(0, str(SCRIPT.parent))

import rerankers as example  # noqa: E402


class ByLength:
    """Scores a pair by the length of its second text."""

    def predict(self, pairs, **_):
        import numpy as np

        return np.array([len(paragraph) for _, paragraph in pairs])


def test_reciprocal_ranks():
    asked = [("q", ["aa", "a", "aaa"], 1), ("q", ["aa", "a", "aaa"], 2), ("q", ["aa"], None), ("q", ["a", "a"], 0)]
    assert example.mean_reciprocal_rank(asked, None) == pytest.approx((1 / 2 + 1 / 3 + 0 + 1) / 4)
    # The answers are the shortest and the longest; of two that tie the other one stands before it.
    assert example.mean_reciprocal_rank(asked, ByLength()) == pytest.approx((1 / 3 + 1 + 0 + 1 / 2) / 4)
    assert example.mean_reciprocal_rank([("q", ["a"] * 12, 11)], None) == 0  # beyond the tenth


@pytest.mark.slow
def test_rows_are_made_once_and_open(monkeypatch, capsys, bert, text, tmp_path):
    encoder, output = str(tmp_path / "encoder"), tmp_path / "rows"
    SentenceTransformer(str(bert), device="cpu").save(encoder)  # with mean pooling
    answer = {"text": "The", "answer_start": 0}
    blocks = list(dict.fromkeys(" ".join(block.splitlines()[:2]) for block in text.read_text().split("\n\n")))
    paragraphs = [
        {"context": block, "qas": [{"id": str(n), "question": block[:12], "answers": [answer]}]}
        for n, block in enumerate(blocks[:40])
    ]
    squad = tmp_path / "squad.json"
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))

    def run(*arguments):
        given = ["--encoder", encoder, "--train", squad, "--squad", squad, "--text", text, "--eval-text", text]
        given += ["--train-steps", "4", "--questions", "10", "--candidates", "3", "--output-dir", output]
        given += ["--batch-size", "4", "--max-length", "24", "--threads", "1", "--rows", "auto", *arguments]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given)])
        example.main()
        return capsys.readouterr().out

    run("--steps", "2")
    made = output / "auto-2" / "figures.json"
    first = made.stat().st_mtime_ns
    printed = run("--steps", "0,2")
    assert made.stat().st_mtime_ns == first
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == ["as they were found", "dense", "auto", "auto"]
    assert len({len(row) for row in rows}) == 1
    cells = {path.parent.name: json.loads(path.read_text()) for path in output.glob("*/figures.json")}
    assert cells["dense-0"]["figures"]["logits"] == pytest.approx(1)
    assert cells["auto-2"]["parameters"] < cells["dense-0"]["parameters"]
    assert 0 <= cells["auto-2"]["figures"]["mrr@10"] <= 1
