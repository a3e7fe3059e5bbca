"""Exports on their way to the Hub and on the page; no exporter is needed to tell of them."""

import json

import pytest

from schubert_hf.export import ExportError
from schubert_hf.export.record import weights_of
from schubert_hf.hub import Facts, render_card
from schubert_hf.hub.page import check_card
from schubert_hf.hub.writing import update_page, write_page

NAMES = {"inputs": ["input_ids", "attention_mask"], "outputs": ["logits"], "pooling": None}
FLOAT = {**NAMES, "method": None, "quality": None, "texts": None}
FLOAT |= {"check": {"difference": 1.25e-6, "largest": 3.5, "batches": 20}}
INT8 = {**NAMES, "check": None, "method": "dynamic", "quality": {"logits": 0.987}, "texts": 128}


def entries(weights=None):
    return {
        file: {**known, "files": files, "megabytes": 0.1, "weights": weights}
        for file, files, known in (
            ("onnx/model.onnx", ["onnx/model.onnx", "onnx/model.onnx_data"], FLOAT),
            ("onnx/model_quantized.onnx", ["onnx/model_quantized.onnx"], INT8),
            ("openvino/openvino_model.xml", ["openvino/openvino_model.xml", "openvino/openvino_model.bin"], FLOAT),
        )
    }


@pytest.fixture
def exported(folder):
    """The result's folder with exports that say they are of its weights, and a file that is none."""
    made = entries(weights_of(folder))
    for name in [*(name for known in made.values() for name in known["files"]), "onnx/other.onnx"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / "exports.json").write_text(json.dumps(made))
    return folder


def test_publish_takes_them_along(worker, hub, exported):
    answer = worker("publish", exported, "org/exported", license="apache-2.0")
    assert "value" in answer, answer["error"]
    files = hub.repos["org/exported"].commits[-1].files
    taken = {name for name in files if name.startswith(("onnx", "openvino", "exports"))}
    assert taken == {"exports.json", *(name for known in entries().values() for name in known["files"])}
    assert files["onnx/model.onnx_data"] == b"onnx/model.onnx_data"
    page = files["README.md"].decode()
    assert "| `onnx/model.onnx` | 0.1&nbsp;MB | float32 | differs by 1e-06 of 3.5 |" in page


@pytest.mark.parametrize("damage", ["weights", "missing"])
def test_exports_of_other_weights_are_not_published(worker, exported, build, damage):
    if damage == "weights":
        build(exported, seed=1)
    else:
        (exported / "openvino" / "openvino_model.bin").unlink()
    kind, message = worker("publish", exported, "org/stale")["error"]
    assert kind == "PublishError"
    assert {"weights": "was made from other weights", "missing": "lacks `openvino/openvino_model.bin`"}[
        damage
    ] in message
    assert "Run `schubert export` again" in message
    with pytest.raises(ExportError):
        Facts.of_folder(exported)


def page_of(record, exports, **changes):
    text = render_card(Facts.from_json({**record, **changes, "exports": exports}), "org/small")
    check_card(text)
    return text


def test_the_page_says_how_to_use_each(record):
    page = page_of(record, entries())
    assert "schubert export" not in page
    assert "schubert export FOLDER --format onnx" in page_of(record, {})
    for text in (
        "| `onnx/model_quantized.onnx` | 0.1&nbsp;MB | int8 | predictions: 0.987 |",
        "compared with PyTorch on 20 batches",
        "on 128 texts that they were not calibrated on: the share of equal predictions",
        'session = InferenceSession(f"{folder}/onnx/model.onnx")',
        'precision = {"INFERENCE_PRECISION_HINT": "f32"}',
        'const pipe = await pipeline("fill-mask", "org/small", { config, dtype: "q8" });',
    ):
        assert text in page, text


def test_the_page_names_what_is_there_alone(record):
    only = {"openvino/openvino_model.xml": entries()["openvino/openvino_model.xml"]}
    page = page_of(record, only)
    assert "transformers.js" not in page
    assert "onnxruntime" not in page
    assert "import openvino" in page
    assert "folder = snapshot_download" in page


@pytest.mark.parametrize(
    ("pooling", "outputs"),
    [
        ("cls", ["last_hidden_state"]),
        (None, ["last_hidden_state"]),
        (None, ["token_embeddings", "sentence_embedding"]),
    ],
)
def test_the_page_of_a_sentence_encoder(record, pooling, outputs):
    """An embedding that is more than a mean or a first token has its pooling inside, or no pipeline."""
    facts = {"kind": "SentenceTransformer", "width": 4, "dense_width": 4, "map_parameters": 0, "max_length": 20}
    made = {"onnx/model.onnx": {**entries()["onnx/model.onnx"], "pooling": pooling, "outputs": outputs}}
    config = {**record["config"], "architectures": ["SchuBertModel"]}
    page = page_of(record, made, run={**record["run"], "encoder": facts}, config=config)
    assert ('pooling: "cls", normalize: true' in page) == (pooling == "cls")
    assert ("sentence_embedding);" in page) == (len(outputs) == 2)
    assert ("transformers.js" in page) == (pooling == "cls" or len(outputs) == 2)
    assert "text-embeddings-inference" in page


def test_a_page_in_a_folder_opens_the_files_beside_it(record):
    page = render_card(Facts.from_json({**record, "exports": entries()}), "small")
    assert 'folder = "small"' in page
    assert 'env.localModelPath = ".";' in page
    assert "snapshot_download" not in page
    assert "schubert export small --format onnx" in render_card(Facts.from_json({**record, "exports": {}}), "small")


def test_a_folders_page_shows_what_was_exported_since(exported):
    """Its licence stays; a page under another name, or one that was edited, is not touched."""
    readme, made = exported / "README.md", (exported / "exports.json").read_text()
    assert not update_page(exported)  # there is none
    (exported / "exports.json").unlink()
    write_page(exported, exported.name, license="mit")
    assert "onnx/model.onnx" not in readme.read_text()
    (exported / "exports.json").write_text(made)
    assert update_page(exported)
    assert "| `onnx/model.onnx` | 0.1&nbsp;MB |" in readme.read_text()
    assert "license: mit" in readme.read_text()
    write_page(exported, "org/other")
    for text in (readme.read_text(), "# Mine\n"):
        readme.write_text(text)
        assert not update_page(exported)
        assert readme.read_text() == text
