import json
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import LONGEST, snapshot
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForMaskedLM

import schubert_hf
from schubert_hf import SchuBertForPreTraining, SchuBertModel
from schubert_hf.auto import MODELS
from schubert_hf.commands import main
from schubert_hf.export import ExportError, export, formats
from schubert_hf.export.record import RECORD

pytest.importorskip("onnxruntime", reason="the extra `export`")
pytest.importorskip("openvino", reason="the extra `export`")

FILES = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
OUTPUTS = {
    "SchuBertModel": ["last_hidden_state", "pooler_output"],
    "SchuBertForPreTraining": ["logits", "seq_relationship_logits"],
    "SchuBertForQuestionAnswering": ["start_logits", "end_logits"],
}
# Without VNNI the sum of two products of bytes is cut off at 16 bits.
CPU = torch.cpu.get_capabilities()
SATURATES = CPU["architecture"] == "x86_64" and not (CPU["avx512_vnni"] or CPU["avx_vnni"])


def session(path):
    """The export in its own runtime, opened as a user would, but in full precision."""
    if path.suffix == ".onnx":
        import onnxruntime

        opened = onnxruntime.InferenceSession(path)
        names = [output.name for output in opened.get_outputs()]
        return lambda inputs: dict(zip(names, opened.run(None, inputs), strict=True))
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: {port.any_name: value for port, value in compiled(inputs).items()}


def both(run, model, inputs, rename=()):
    """Every output of an export and of its model, on a batch of arrays."""
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(x) for name, x in inputs.items()})
    found = run(inputs)
    names = {dict(rename).get(name, name): x.numpy() for name, x in wanted.items() if x is not None}
    assert set(found) == set(names)
    return [(np.asarray(found[name]), x) for name, x in names.items()]


def compare(run, model, inputs, rename=(), where=...):
    """The largest difference of any output; `where`: of token states."""
    return max(float(np.abs(x - wanted)[where].max()) for x, wanted in both(run, model, inputs, rename))


def batch(tokenizer, *shape):
    random = np.random.default_rng(0)
    mask = np.ones(shape, dtype=np.int64)
    mask[-1, ..., 2:] = 0
    ids = random.integers(5, len(tokenizer), shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": random.integers(0, 2, shape)}


def test_an_encoder_in_onnx(save, tokenizer, tmp_path, capsys):
    """Layers without heads and without filters, odd widths; as the command does it."""
    folder = save(SchuBertModel, tmp_path / "small")
    before = snapshot(folder)
    main(["export", str(folder)])
    printed = capsys.readouterr().out
    assert "onnx/model.onnx: 0.1 MB, input_ids, attention_mask, token_type_ids -> last_hidden_state" in printed
    assert "largest difference from PyTorch on 20 batches: " in printed
    after = snapshot(tmp_path)
    assert {str(path) for path in after} - {f"small/{path}" for path in before} == {
        "small/onnx/model.onnx",
        "small/exports.json",
    }
    assert str(Path(schubert_hf.__file__).parent.parent).encode() not in after[Path("small/onnx/model.onnx")]
    run, model = session(folder / "onnx" / "model.onnx"), SchuBertModel.from_pretrained(folder)
    for shape in ((1, 1), (1, LONGEST), (7, 3)):
        assert compare(run, model, batch(tokenizer, *shape)) < 1e-4
    assert json.loads((folder / RECORD).read_text())["onnx/model.onnx"]["check"]["difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("kind", list(MODELS.values()), ids=lambda kind: kind.__name__)
def test_every_head(save, tokenizer, kind, format, corpus, tmp_path):
    """Random weights are nothing that int8 likes, on a CPU that saturates least of all; a wrong graph is off by 1."""
    if format == "openvino":
        pytest.importorskip("nncf", reason="the extra `export`")
    layers = 3 if kind is SchuBertModel else 2
    folder, output = save(kind, layers=layers, num_labels=3), tmp_path / "other"
    made, quantized = export(folder, format, int8=True, text=corpus, output=output)
    assert sorted(made.outputs) == sorted(OUTPUTS.get(kind.__name__, ["logits"]))
    run, model = session(output / FILES[format]), kind.from_pretrained(folder)
    rename = {"prediction_logits": "logits"}
    for shape in ((1, 1), (1, LONGEST), (7, 3)):
        shape = (shape[0], 2, shape[1]) if "MultipleChoice" in kind.__name__ else shape
        assert compare(run, model, batch(tokenizer, *shape), rename) < 1e-4
    inputs = batch(tokenizer, *((7, 2, 9) if "MultipleChoice" in kind.__name__ else (7, 9)))
    for x, wanted in both(session(output / quantized.file), model, inputs, rename):
        assert np.linalg.norm(x - wanted) < 0.6 * np.linalg.norm(wanted)
    assert quantized.quality.pop("neighbours", 1.0) > 0.5
    assert SATURATES or min(quantized.quality.values()) > 0.7, quantized.quality
    assert (output / quantized.file).exists()
    assert not (folder / quantized.file).exists()
    AutoTokenizer.from_pretrained(output)
    assert json.loads((output / "config.json").read_text())["architectures"] == [kind.__name__]


@pytest.mark.slow
def test_executorch(save, tokenizer):
    """It knows its inputs by place; memory is planned for 16 sequences."""
    runtime = pytest.importorskip("executorch.runtime", reason="the extra `executorch`")
    folder = save(SchuBertModel)
    (made,) = export(folder, "executorch")
    method = runtime.Runtime.get().load_program(str(folder / made.file)).load_method("forward")
    model = SchuBertModel.from_pretrained(folder)
    for shape in ((1, 1), (16, LONGEST), (7, 3)):
        run = lambda inputs: dict(  # noqa: E731
            zip(made.outputs, method.execute([torch.from_numpy(inputs[name]) for name in made.inputs]), strict=True)
        )
        assert compare(run, model, batch(tokenizer, *shape)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
def test_a_bert_and_a_relative(tmp_path, format, tokenizer):
    """Each is exported as it is; a RoBERTa has one segment, and padding that takes no positions."""
    sizes = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 27}
    torch.manual_seed(0)
    bert = BertForSequenceClassification(BertConfig(vocab_size=99, **sizes)).eval()
    roberta = RobertaForMaskedLM(
        RobertaConfig(vocab_size=99, max_position_embeddings=34, type_vocab_size=1, **sizes)
    ).eval()
    for model in (bert, roberta):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        (made,) = export(folder, format)
        inputs = batch(range(99), 3, 8)
        inputs["input_ids"][inputs["attention_mask"] == 0] = model.config.pad_token_id
        if model is roberta:
            assert made.inputs == ("input_ids", "attention_mask")
            del inputs["token_type_ids"]
        # At padding a RoBERTa has a position of its own, which no real token sees.
        where = inputs["attention_mask"] > 0 if model is roberta else ...
        assert compare(session(folder / FILES[format]), model, inputs, where=where) < 1e-4


def test_a_difference_fails_and_leaves_nothing(save, tmp_path, monkeypatch):
    folder = save(SchuBertModel, tmp_path / "small")
    before = snapshot(tmp_path)
    model = SchuBertModel.from_pretrained(folder).eval()
    saved = []

    class Wrong(formats.Onnx):
        """Saves a graph and its sidecar; computes something else than PyTorch in one batch of 20."""

        def trace(self, subject):
            return None

        def save(self, program, path):
            saved.extend([path, path.with_name(f"{path.name}_data")])
            for part in saved:
                part.write_text("graph")

        def open(self, path, subject):
            return lambda batch: {
                name: x + 0.1 * (batch["input_ids"].shape == (1, LONGEST)) for name, x in model(**batch).items()
            }

    monkeypatch.setitem(formats.FORMATS, "onnx", Wrong())
    for output in (None, tmp_path / "new"):
        saved.clear()
        with torch.no_grad(), pytest.raises(ExportError, match=r"`onnx/model.onnx` differs from PyTorch by 0.1"):
            export(folder, output=output)
        assert len(saved) == 2
        assert snapshot(tmp_path) == before
        assert {path.name for path in tmp_path.iterdir()} == {"small"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "tflite"}, "`format` is 'tflite'; allowed is one of onnx, openvino, executorch"),
        ({"format": "executorch", "int8": True}, "The format 'executorch' has no int8; onnx, openvino have"),
        ({"int8": True}, "int8 is calibrated and judged on text. Give `--text`"),
        ({"pooled": True}, "is no sentence encoder, so it has no pooling. Leave `--pooled` out"),
        ({"int8": True, "text": ["One sentence only."]}, "int8 needs 6 or more"),
    ],
)
def test_one_error_before_any_work(save, tmp_path, monkeypatch, settings, message):
    folder = save(SchuBertForPreTraining, tmp_path / "small")
    before = snapshot(tmp_path)
    monkeypatch.setattr(formats.Onnx, "trace", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ExportError, match=message):
        export(folder, **settings)
    assert snapshot(tmp_path) == before


def test_a_record_that_cannot_be_read_is_an_error(save, tmp_path):
    folder = save(SchuBertModel, tmp_path / "small")
    (folder / RECORD).write_text("[")
    with pytest.raises(ExportError, match="cannot be read"):
        export(folder)


def test_no_folder(tmp_path):
    with pytest.raises(ExportError, match="hf download"):
        export(tmp_path / "absent")


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("onnxscript", r"needs onnxscript\. Install: pip install \"schubert-hf\[export\]\""),
        ("transformers.exporters", r"5\.23 is the first that has"),
    ],
)
def test_packages_that_are_missing_are_named(tmp_path, monkeypatch, absent, message):
    find = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    with pytest.raises(ExportError, match=message):
        export(tmp_path)
