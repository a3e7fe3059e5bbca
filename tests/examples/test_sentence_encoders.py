"""The comparison of sentence encoders as a user runs it: rows on disk, made once, and a table of them."""

import json
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "sentence_encoders.py"
sys.path.insert(0, str(SCRIPT.parent))

import sentence_encoders as example  # noqa: E402
from study.quality_picture import spread  # noqa: E402

QUICK = ["--batch-size", "4", "--max-length", "24", "--threads", "1", "--rows", "auto,sentence-transformers,model2vec"]


@pytest.mark.slow
def test_rows_are_made_once_and_open(monkeypatch, capsys, bert, text, tmp_path):
    """Of model2vec only what it makes is needed: static embeddings, of another width."""
    dense, tmp_path = str(tmp_path / "dense"), tmp_path / "rows"
    encoder = SentenceTransformer(str(bert), device="cpu")  # with mean pooling
    encoder.save(dense)
    words = encoder.tokenizer.backend_tokenizer
    static = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu")
    monkeypatch.setattr(example, "make_static", lambda _: static)

    def run(*arguments):
        given = ["--model", dense, "--text", text, "--eval-text", text, "--output-dir", tmp_path]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given), *QUICK, *arguments])
        example.main()
        return capsys.readouterr().out

    run("--steps", "2")
    made = tmp_path / "auto-2" / "figures.json"
    first = made.stat().st_mtime_ns
    printed = run("--steps", "0,2")
    assert made.stat().st_mtime_ns == first
    rows = [line.split("|")[1:3] for line in printed.splitlines() if line.startswith("|")][2:]
    assert [(row.strip(), int(steps)) for row, steps in rows] == [
        ("dense", 0),
        ("auto", 0),
        ("sentence-transformers", 0),
        ("model2vec", 0),
        ("auto", 2),
        ("sentence-transformers", 2),
    ]
    cells = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/figures.json")}
    assert cells["dense-0"]["figures"]["text"]["cosine"] == pytest.approx(1, abs=1e-5)
    for name, cell in cells.items():
        if name != "dense-0":
            encoder = SentenceTransformer(str(tmp_path / name), device="cpu")
            assert sum(x.numel() for x in encoder.parameters()) == cell["parameters"] < cells["dense-0"]["parameters"]
            assert ("cosine" in cell["figures"]["text"]) == (name != "model2vec-0")
            assert cell["figures"]["text"].get("cosine", 0) < 1
    with pytest.raises(SystemExit, match="was made with another `seed`"):
        run("--steps", "0", "--seed", "1")
    assert (tmp_path / "quality.png").stat().st_size > 1000


def test_labels_of_the_picture_stay_apart_and_in_order():
    values = [0.8, 1.0, 0.82, 0.3, 0.79]
    places = spread(values, 0.07)
    assert places == pytest.approx([0.75, 1.0, 0.82, 0.3, 0.68])
