"""Exports in the libraries that users run them with, each equal to PyTorch."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.backend.utils import backend_should_export
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from schubert_hf import SchuBertForMaskedLM, SchuBertForPreTraining, SchuBertModel
from schubert_hf.export import ExportError, export
from schubert_hf.hub import render_card
from schubert_hf.hub.record import Record
from schubert_hf.shipping import ship

for package in ("onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason="the extra `export`")

HERE = Path(__file__).parent
PACKAGES = os.environ.get("TRANSFORMERS_JS")  # a folder with node_modules/@huggingface/transformers
WIDTH = 13
TEXTS = ["The king sees a cat.", "A sailor hears the old bird at sea every morning 7."]

pytestmark = pytest.mark.slow
with_node = pytest.mark.skipif(
    PACKAGES is None or shutil.which("node") is None,
    reason="TRANSFORMERS_JS names no folder in which `npm install @huggingface/transformers` ran, or there is no node",
)


@pytest.fixture(scope="module")
def encoder_folder(save, tmp_path_factory, tokenizer):
    """A sentence encoder: mean pooling, a Dense behind it, normalised."""

    def build(*behind, **pooling):
        folder = save(SchuBertModel, layers=1)
        pool = Pooling(WIDTH, **{"pooling_mode": "mean", **pooling})
        modules = [Transformer(str(folder), max_seq_length=30), pool, *behind, Normalize()]
        saved = tmp_path_factory.mktemp("encoder") / "encoder"
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(saved), create_model_card=False)
        ship(saved)
        return saved

    return build


def run_onnx(path, tokenizer, texts):
    """What a user types."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    inputs = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="np"))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True)), inputs["attention_mask"]


def test_a_sentence_encoder_with_its_pooling_inside(encoder_folder):
    torch.manual_seed(0)
    folder = encoder_folder(Dense(WIDTH, 6))
    (made,) = export(folder, pooled=True)
    assert made.outputs == ("token_embeddings", "sentence_embedding")
    encoder = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    outputs, _ = run_onnx(folder / made.file, encoder.tokenizer, TEXTS)
    np.testing.assert_allclose(outputs["sentence_embedding"], encoder.encode(TEXTS), atol=1e-5)
    states = encoder.encode(TEXTS, output_value="token_embeddings")
    for own, wanted in zip(outputs["token_embeddings"], states, strict=True):
        np.testing.assert_allclose(own[: len(wanted)], wanted, atol=1e-4)


def test_a_pooling_that_leaves_the_prompt_out_stays_outside(encoder_folder):
    folder = encoder_folder(include_prompt=False)
    with pytest.raises(ExportError, match="leaves its prompt out of the pooling"):
        export(folder, pooled=True)


@pytest.mark.parametrize(
    ("format", "file", "pattern"),
    [("onnx", "model.onnx", "*.onnx"), ("openvino", "openvino_model.xml", "openvino*.xml")],
)
def test_sentence_transformers_opens_the_folder_and_would_take_its_export(
    encoder_folder, corpus, format, file, pattern
):
    """Its backends need optimum, which cannot be installed beside transformers 5: their own search is run alone.

    `last_hidden_state` is what optimum's classes read, and what the modules behind the transformer pool.
    """
    folder = encoder_folder()
    made, int8 = export(folder, format, int8=True, text=corpus)
    for one in (made, int8):
        settings = {"file_name": Path(one.file).name}
        should_export, found = backend_should_export(folder, True, settings, file, pattern, format)
        assert not should_export
        assert (folder / found["subfolder"] / found["file_name"]) == folder / one.file
    assert backend_should_export(folder, True, {}, file, pattern, format)[0] is False
    assert made.outputs == ("last_hidden_state",)
    encoder = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    if format == "onnx":
        outputs, mask = run_onnx(folder / made.file, encoder.tokenizer, TEXTS)
        features = {
            "token_embeddings": torch.from_numpy(outputs["last_hidden_state"]),
            "attention_mask": torch.from_numpy(mask),
        }
        for module in list(encoder)[1:]:
            features = module(features)
        np.testing.assert_allclose(features["sentence_embedding"], encoder.encode(TEXTS), atol=1e-5)


def transformers_js(folder, task, model_type="", dtype="fp32", texts=TEXTS):
    command = ["node", HERE / "transformers_js.mjs", PACKAGES, folder, task, model_type, dtype, json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


@with_node
def test_embeddings_in_transformers_js(encoder_folder, corpus):
    """The folder as it is: for a model type that it does not know, it takes the base class."""
    folder = encoder_folder()
    _, int8 = export(folder, int8=True, text=corpus)
    wanted = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).encode(TEXTS)
    found = np.array(transformers_js(folder, "feature-extraction"))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    quantized = np.array(transformers_js(folder, "feature-extraction", dtype="q8"))
    assert 1e-4 < np.abs(quantized - wanted).max() < 0.5  # another file
    assert int8.file == "onnx/model_quantized.onnx"  # that it found


@with_node
@pytest.mark.parametrize("kind", [SchuBertForMaskedLM, SchuBertForPreTraining])
def test_masked_words_in_transformers_js(save, tmp_path, kind):
    """Its classes with a head know no type but their own: the page says what to set."""
    folder = save(kind, tmp_path / "small", layers=2)
    export(folder)
    text = ["The king sees a [MASK]."]
    with pytest.raises(RuntimeError, match="Unsupported model type: schubert"):
        transformers_js(folder, "fill-mask", texts=text)
    found = transformers_js(folder, "fill-mask", "bert", texts=text)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    wanted = pipeline("fill-mask", model=model, tokenizer=tokenizer)(text[0], top_k=5)
    assert [one["token"] for one in found[0]] == [one["token"] for one in wanted]
    np.testing.assert_allclose([one["score"] for one in found[0]], [one["score"] for one in wanted], atol=1e-3)


def blocks(page, language):
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", page.partition("## Exports")[2], re.M | re.S))


@pytest.mark.parametrize("pooled", [False, True])
def test_what_the_page_says_works_without_this_package(encoder_folder, corpus, tmp_path, pooled):
    """The commands of the section on exports, in a Python that cannot import ours, and under node."""
    folder = encoder_folder()
    for format in ("onnx", "openvino"):
        export(folder, format, pooled=pooled)
    record = Record.of_folder(folder)
    facts = {"kind": "SentenceTransformer", "width": WIDTH, "dense_width": WIDTH, "map_parameters": 0}
    facts |= {"max_length": 30}
    run = json.loads((HERE.parent / "hub" / "record.json").read_text())["run"]
    page = render_card(dataclasses.replace(record, run={**run, "encoder": facts}), folder.name)
    code = blocks(page, "python")
    script = tmp_path / "page.py"
    script.write_text(f"import sys\nsys.modules['schubert_hf'] = None\n{code}")
    beside = {"cwd": folder.parent, "capture_output": True, "text": True, "timeout": 200, "check": False}
    done = subprocess.run([sys.executable, script], **beside)
    shapes = [eval(line) for line in done.stdout.splitlines()]
    name, width = ("sentence_embedding", (1, WIDTH)) if pooled else ("last_hidden_state", (1, 4, WIDTH))
    assert [shape[name][-1] for shape in shapes] == [width[-1]] * 2, done.stderr
    if PACKAGES is None or shutil.which("node") is None:
        return
    (tmp_path / "node_modules").symlink_to(Path(PACKAGES) / "node_modules")
    (tmp_path / "page.mjs").write_text(blocks(page, "js"))
    done = subprocess.run(["node", tmp_path / "page.mjs"], **beside)
    assert f"dims: [ 1, {WIDTH} ]" in done.stdout, done.stderr
