"""Servers that cannot run here, checked against what their source asks for (autumn 2026).

text-embeddings-inference: router/src/lib.rs (`ModelConfig`, `PoolConfig`, `STConfig`, `get_backend_model_type`) and
backends/ort/src/lib.rs (`OrtBackend`). vLLM: vllm/model_executor/models/transformers (`Base`, `LegacyMixin`).
"""

import json
import re

import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from schubert_hf import (
    SchuBertConfig,
    SchuBertForMaskedLM,
    SchuBertForSequenceClassification,
    SchuBertModel,
)
from schubert_hf.auto import MODELS
from schubert_hf.encoders import carrying
from schubert_hf.export.subject import Subject
from schubert_hf.shipping import ship

# Of one size in all layers, as far as vLLM counts: it has the same number of heads and their size everywhere.
UNIFORM = {
    "hidden_sizes": [12, 12],
    "filter_sizes": [19, 7],
    "head_counts": [3, 3],
    "key_query_sizes": [4, 4],
    "value_sizes": [4, 4],
}


@pytest.fixture(params=["mean", "cls"])
def encoder_folder(request, save, tmp_path):
    """A sentence encoder as this package writes it."""
    folder = save(SchuBertModel)
    modules = [Transformer(str(folder), max_seq_length=30), Pooling(17, request.param), Normalize()]
    carrying.save(SentenceTransformer(modules=modules, device="cpu"), tmp_path / "encoder")
    return tmp_path / "encoder", request.param


def read(path):
    return json.loads(path.read_text())


def test_embeddings_in_text_embeddings_inference(encoder_folder):
    folder, mode = encoder_folder
    config = read(folder / "config.json")
    assert {"architectures", "model_type", "max_position_embeddings", "pad_token_id"} <= set(config)
    assert {"hidden_size", "num_hidden_layers"} <= set(config)  # whole numbers, required by the ONNX backend
    assert not any(name.endswith("Classification") for name in config["architectures"])  # it would be no embedder
    # Positions are shifted for these types; ours begin at 0.
    assert config["model_type"] not in ("roberta", "xlm-roberta", "camembert")
    pooling = read(folder / "1_Pooling" / "config.json")
    old = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    assert {name: pooling[f"pooling_mode_{name}"] for name in old} == {
        name: name.startswith(mode) and "sqrt" not in name for name in old
    }
    assert read(folder / "sentence_bert_config.json")["max_seq_length"] == 30
    assert (folder / "tokenizer.json").exists()
    subject = Subject.open(folder)
    assert subject.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert list(subject.function(**dict.fromkeys(subject.inputs, torch.ones(1, 2, dtype=torch.long)))) == [
        "last_hidden_state"
    ]


def test_sentence_transformers_reads_the_old_settings_without_a_word(encoder_folder):
    """Warnings are errors here."""
    folder, mode = encoder_folder
    encoder = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    assert encoder[1].pooling_mode == mode
    assert encoder.max_seq_length == 30


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_rerankers_and_classifiers_in_text_embeddings_inference(save, tmp_path, labels):
    folder = save(SchuBertForSequenceClassification, tmp_path / "small", num_labels=labels)
    ship(folder)
    config = read(folder / "config.json")
    assert config["architectures"][0].endswith("Classification")
    assert len(config["id2label"]) == len(config["label2id"]) == labels
    assert SchuBertConfig.from_pretrained(folder).num_labels == labels
    outputs = Subject.open(folder).function(input_ids=torch.ones(2, 3, dtype=torch.long))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {"logits": (2, labels)}


def published(save, tmp_path, kind, **fields):
    folder = save(kind, tmp_path / "small", **fields)
    ship(folder)
    return folder


def test_auto_classes_of_a_published_folder(save, tmp_path):
    """vLLM makes an AutoModel, and for a classifier an AutoModelForSequenceClassification, from the config alone."""
    names = read(published(save, tmp_path, SchuBertForMaskedLM) / "config.json")["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForSequenceClassification"} <= set(names)
    assert all((tmp_path / "small" / f"{name.partition('.')[0]}.py").exists() for name in names.values())


def test_every_model_says_what_vllm_asks():
    for kind in MODELS.values():
        with torch.device("meta"):
            model = kind(SchuBertConfig(**UNIFORM, num_labels=3))
        assert model._supports_attention_backend
        attention = [module for module in model.modules() if hasattr(module, "is_causal")]
        assert len(attention) == 2
        assert not any(module.is_causal for module in attention)  # or it would be taken for a decoder
        assert [module.layer_idx for module in attention] == [0, 1]


@pytest.mark.parametrize("kind", [SchuBertModel, SchuBertForMaskedLM, SchuBertForSequenceClassification])
def test_tensor_names_reach_their_modules(save, tmp_path, kind):
    """vLLM's renaming of a checkpoint's tensors, for a model that it holds as `model`."""
    folder = save(kind, tmp_path / "small")
    model = AutoModel.from_config(SchuBertConfig.from_pretrained(folder))
    children = "|".join(name for name, _ in model.named_children())
    renames = {
        rf"^{model.base_model_prefix}\.(.+)": r"model.\1",
        rf"^(?!model\.)(({children}).*)": r"model.\1",
    }
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    for pattern, new in renames.items():
        names = {re.sub(pattern, new, name) for name in names}
    wanted = {f"model.{name}" for name in model.state_dict() if not name.startswith("pooler.")}
    assert wanted <= names
    assert {name.partition(".")[0] for name in names - wanted} <= {"model", "cls", "classifier"}


def test_embeddings_are_as_wide_as_vllm_thinks():
    """It reads `embedding_size`, then `hidden_size`."""
    ragged = {**UNIFORM, "hidden_sizes": [15, 12]}
    for fields in (UNIFORM, *([ragged] if hasattr(SchuBertConfig(**ragged), "embedding_size") else [])):
        config = SchuBertConfig(**fields)
        model = SchuBertModel(config)
        assert getattr(config, "embedding_size", config.hidden_size) == model.get_input_embeddings().embedding_dim


def test_arguments_reach_the_attention_function(monkeypatch):
    """As vLLM calls the model: positions, no mask, its attention instances by layer, a tuple back."""
    torch.manual_seed(0)
    model = SchuBertModel(SchuBertConfig(**UNIFORM, vocab_size=50, max_position_embeddings=20)).eval()
    positions = torch.tensor([[3, 1, 2, 0]])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = model(input_ids=ids, position_ids=positions).last_hidden_state
    seen = []

    def attend(module, query, key, value, attention_mask, scaling=None, attention_instances=None, **_):
        seen.append((module.layer_idx, attention_instances[module.layer_idx], tuple(query.shape), attention_mask))
        scores = (query @ key.mT * scaling).softmax(-1)
        return (scores @ value).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "served", attend)
    model.config._attn_implementation = "served"
    with torch.no_grad():
        states = model(
            input_ids=ids,
            inputs_embeds=None,
            use_cache=False,
            position_ids=positions,
            attention_instances={0: "first", 1: "second"},
            return_dict=False,
        )[0]
    assert seen == [(0, "first", (1, 3, 4, 4), None), (1, "second", (1, 3, 4, 4), None)]
    torch.testing.assert_close(states, wanted)
