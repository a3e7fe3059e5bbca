"""Each short script of examples/ on a tiny model and text, as `python examples/NAME.py` runs it."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForNextSentencePrediction, BertForNextSentencePrediction, BertModel

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = ["--recovery-steps", "1"]


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Runs a script in an empty folder and returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_embeddings_finds_what_the_dense_encoder_finds(script, bert, text) -> None:
    sources = ["--model", bert, "--text", text, "--queries", text, "--sentences", 50]
    shown = script("embeddings.py", *sources, "--target", "80%", *QUICK)
    assert "index of 50 dense vectors" in shown
    share = int(re.search(r"(\d+)% are those", shown)[1])
    assert 20 < share <= 100  # by chance: 10 of 50
    small = SentenceTransformer("pruned-embeddings", trust_remote_code=True, device="cpu")
    assert small.get_embedding_dimension() == 36


def test_classifier_agrees(script, bert, text) -> None:
    BertForNextSentencePrediction.from_pretrained(bert).save_pretrained("classifier")
    for path in bert.glob("*token*"):
        Path("classifier", path.name).write_bytes(path.read_bytes())
    shown = script("classifier.py", "--model", "classifier", "--text", text, "--target", "80%", *QUICK)
    assert len(re.findall(r"\d%$", shown, re.M)) == 2
    small = AutoModelForNextSentencePrediction.from_pretrained("pruned-classifier")
    assert small.num_parameters() <= 0.8 * BertModel.from_pretrained(bert).num_parameters() * 1.01


def test_multilingual_trims_and_prunes(script, bert, text) -> None:
    shown = script("multilingual.py", "--model", bert, "--text", text, "--target", "70%", "--vocabulary", "90", *QUICK)
    assert re.search(r"-> \d+ words; .*\nparameters: [\d,]+ -> [\d,]+ trimmed -> [\d,]+ pruned", shown)
    record = json.loads(Path("pruned-multilingual", "pruning.json").read_text())
    assert record["size"] <= 0.7 * record["source_size"]
    assert json.loads(Path("pruned-multilingual", "config.json").read_text())["vocab_size"] <= 90


def test_paper_lists_the_shapes_and_runs_algorithm_1(script, bert, text) -> None:
    shown = script("paper.py", "--model", bert, "--text", text, "--target", "80%", "--alpha-steps", 1, *QUICK)
    assert re.search(r"schubert-66m +66\.3M parameters", shown)
    assert json.loads(Path("pruned-paper", "pruning.json").read_text())["config"]["method"] == "schubert"


def test_evaluate_mlm(script, bert, text) -> None:
    few = ["--max-length", 24, "--examples", 16, "--scored-examples", 2, "--threads", 1]
    script("evaluate_mlm.py", "--model", bert, "--text", text, *few, "--output-dir", "measured")
    assert json.loads(Path("measured", "results.json").read_text())["results"]


@pytest.mark.slow
def test_export_leaves_checked_files(script, bert, text) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    shown = script("export.py", "--model", bert, "--text", text, "--output", "exported")
    assert "largest difference from PyTorch on 20 batches" in shown
    assert "int8: " in shown
    assert {"model.onnx", "model_quantized.onnx"} <= {path.name for path in Path("exported", "onnx").iterdir()}
