"""Sentence encoders as old releases of sentence-transformers wrote them: the transformer in a folder of its own."""

import json

import numpy as np
import pytest
from folders import LONGEST
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from schubert_hf.commands import main
from schubert_hf.export import export
from schubert_hf.export.errors import ExportError
from schubert_hf.export.record import current_exports

WIDTH = 12


@pytest.fixture
def old_encoder(tokenizer, tmp_path):
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 7}
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=WIDTH, max_position_embeddings=LONGEST, **sizes)
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    modules = [Transformer(str(tmp_path / "bert"), max_seq_length=9), Pooling(WIDTH, "cls"), Normalize()]
    folder = tmp_path / "encoder"
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    inside = folder / "0_Transformer"
    inside.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        if path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(inside / path.name)
    (inside / "sentence_bert_config.json").rename(inside / "sentence_roberta_config.json")
    (folder / "config.json").write_text('{"__version__": "0.2.0"}')  # as the oldest have it
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**listed[0], "path": inside.name}, *listed[1:]]))
    return folder


def test_it_is_inspected(old_encoder, capsys):
    main(["inspect", str(old_encoder), "--json"])
    assert json.loads(capsys.readouterr().out)["shape"]["hidden_sizes"] == [WIDTH]


def test_its_export_has_all_that_clients_need(old_encoder, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export`")
    output = tmp_path / "output"
    (made,) = export(old_encoder, pooled=True, output=output)
    assert not list(output.rglob("*.safetensors"))
    inputs = AutoTokenizer.from_pretrained(output)(["The king sees a cat."], return_tensors="np")
    found = dict(zip(made.outputs, runtime.InferenceSession(output / made.file).run(None, dict(inputs)), strict=True))
    wanted = SentenceTransformer(str(old_encoder), device="cpu")
    np.testing.assert_allclose(found["sentence_embedding"], wanted.encode(["The king sees a cat."]), atol=1e-5)
    for path in old_encoder.glob("0_Transformer/*.safetensors"):  # with weights, it is the same encoder
        path.rename(output / path.name)
    opened = SentenceTransformer(str(output), device="cpu")
    assert opened.max_seq_length == 9
    np.testing.assert_allclose(opened.encode("A cat."), wanted.encode("A cat."), atol=1e-5)


def test_its_export_is_stale_once_its_weights_are_others(old_encoder):
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    (made,) = export(old_encoder)
    assert list(current_exports(old_encoder)) == [made.file]
    path = old_encoder / "0_Transformer" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match="made from other weights"):
        current_exports(old_encoder)
