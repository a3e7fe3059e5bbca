"""Encoders that cannot be pruned: one clear error each, before any work, and before code of theirs runs."""

import json

import pytest
import torch
from relatives import QUICK
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

import schubert_hf
from schubert_hf.encoders.kinds import EncoderError, is_sentence_encoder, kind_of
from schubert_hf.encoders.sentence_encoder import SentenceEncoder
from schubert_hf.front.arguments import SettingError


@pytest.fixture
def folder(sentence_transformer, tmp_path):
    sentence_transformer().save_pretrained(str(tmp_path / "dense"))
    return tmp_path / "dense"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_kinds(folder, cross_encoder, tmp_path, bert_folder):
    cross_encoder.save_pretrained(str(tmp_path / "cross"))
    assert kind_of(str(tmp_path / "cross")) == kind_of(cross_encoder) == "CrossEncoder"
    assert is_sentence_encoder(str(folder))
    (tmp_path / "cross" / "modules.json").unlink()  # as older versions saved them
    edit(tmp_path / "cross" / "config.json", lambda config: config.update(sentence_transformers={"version": "4.1.0"}))
    assert kind_of(str(tmp_path / "cross")) == "CrossEncoder"
    for other in (str(tmp_path), "nobody/nothing", object()):
        assert kind_of(other) is None
    with pytest.raises(EncoderError, match="is no sentence encoder"):
        SentenceEncoder.open(str(tmp_path))


@pytest.mark.parametrize(
    ("place", "module", "words"),
    [
        (1, "mine.Pooling", "a module with code of its own, `mine.Pooling`"),
        (1, "sentence_transformers.models.WeightedLayerPooling", "`WeightedLayerPooling` behind its Transformer"),
        (2, "sentence_transformers.models.LSTM", "has the module `LSTM` behind its Pooling"),
        (0, "sentence_transformers.models.StaticEmbedding", "begins with the module `StaticEmbedding`"),
    ],
)
def test_modules_that_are_not_known(folder, place, module, words):
    edit(folder / "modules.json", lambda modules: modules[place].update(type=module))
    with pytest.raises(EncoderError, match=words):
        schubert_hf.prune(str(folder), "60%", text=["A text."])


@pytest.mark.parametrize("content", ["{", "[1]", '[{"path": ""}]', "5"])
def test_a_list_of_modules_that_is_none(folder, content):
    (folder / "modules.json").write_text(content)
    with pytest.raises(EncoderError, match=r"`modules\.json` of `.*dense` cannot be read as a list of modules"):
        schubert_hf.prune(str(folder), "60%", text=["A text."])


def test_what_cannot_be_opened(folder, tokenizer, sentence_transformer):
    edit(folder / "1_Pooling" / "config.json", lambda config: config.update(pooling_mode="median"))
    with pytest.raises(
        EncoderError, match=r"cannot be opened as a SentenceTransformer: Invalid pooling mode: 'median'"
    ):
        SentenceEncoder.open(str(folder))
    edit(folder / "config.json", lambda config: config.update(model_type="mpnet"))
    with pytest.raises(EncoderError, match=r"family 'mpnet'\. MPNet cannot become a SchuBERT"):
        SentenceEncoder.open(str(folder))
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=6), Normalize()], device="cpu")
    with pytest.raises(EncoderError, match="begins with the module `StaticEmbedding`"):
        SentenceEncoder.open(static)


def test_own_space_needs_an_encoder_whose_width_is_free(sentence_transformer, cross_encoder):
    for model, words in ((sentence_transformer("cls", 13), "reads the dense width"), (cross_encoder, "is none")):
        with pytest.raises(SettingError, match=words):
            schubert_hf.prune(model, "60%", text=["A text."], own_space=True)


def test_a_text_that_is_too_short(sentence_transformer):
    for text in ([""], ["One."]):
        with pytest.raises(ValueError, match=r"[Tt]ext"):
            schubert_hf.prune(sentence_transformer(), "60%", text=text)


@pytest.mark.parametrize("module", [None, "2_Dense"])
def test_weights_that_would_be_unpickled(sentence_transformer, tmp_path, module):
    sentence_transformer(dense=13).save_pretrained(str(tmp_path))
    place = tmp_path / (module or "")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=f"no .*safetensors.*{'unpickles' if module else ''}"):
        schubert_hf.prune(str(tmp_path), "60%", text=["A text."])


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="its weights are damaged"):
        schubert_hf.prune(str(folder), "60%", text=["A text."])


def test_modules_that_would_be_lost(folder, corpus):
    """A sparse encoder's: only the user can say that they are not wanted."""
    edit(folder / "config_sentence_transformers.json", lambda settings: settings.update(model_type="SparseEncoder"))
    for job in (schubert_hf.prune, schubert_hf.trim):
        with pytest.raises(EncoderError, match="is a SparseEncoder of sentence-transformers"):
            job(str(folder), "60%", text=corpus)
    assert schubert_hf.prune(str(folder), "80%", text=corpus, objective="outputs", **QUICK).package is None
