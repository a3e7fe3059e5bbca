"""Sentence encoders and rerankers that are built on BERT's relatives, such as multilingual-e5 and bge-reranker."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from published import make_sentence_transformer, write_repository
from relatives import QUICK, build, tokenizer_of
from sentence_transformers import CrossEncoder, SentenceTransformer
from strangers import PYTHONS, run_clean
from transformers import AutoTokenizer

import schubert_hf
from schubert_hf import SchuBertPruner, convert_bert
from schubert_hf.encoders.kinds import CROSS, SENTENCE
from schubert_hf.encoders.sentence_encoder import SentenceEncoder
from schubert_hf.hub.staging import stage
from schubert_hf.pruning.checks import fingerprint

TEXTS = ["the cat sees a dog", "A king paints the river every morning."]


pytestmark = pytest.mark.usefixtures("_no_pictures")


@pytest.fixture
def encoders(corpus, tmp_path):
    """Name -> the folder of a sentence encoder, as such repositories hold them."""

    def place(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    def like_e5():
        """A BERT with the tokenizer of XLM-R."""
        folder = place("e5")
        write_repository("intfloat/multilingual-e5-small", folder, corpus)
        make_sentence_transformer(folder, "mean_tokens", prompts={"query": "query: ", "passage": "passage: "})
        return folder

    def like_m3():
        """In half precision, and in shards."""
        folder = place("m3")
        model = write_repository("BAAI/bge-m3", folder, corpus)
        (folder / "model.safetensors").unlink()
        model.half().save_pretrained(folder, max_shard_size="20KB")
        make_sentence_transformer(folder, "cls_token")
        return folder

    def like_a_masked_lm():
        """With the tensors of a masked language model: under a prefix, without a pooler, its head left over."""
        folder = place("masked")
        write_repository("FacebookAI/xlm-roberta-base", folder, corpus)
        make_sentence_transformer(folder, "mean_tokens")
        return folder

    def distilbert():
        folder = place("distilbert")
        write_repository("distilbert/distilbert-base-uncased", folder, corpus)
        make_sentence_transformer(folder, "mean_tokens")
        return folder

    return {make.__name__: make for make in (like_e5, like_m3, like_a_masked_lm, distilbert)}


@pytest.fixture
def rerankers(corpus, tmp_path):
    """Name -> the folder of a reranker, as transformers saved it and as sentence-transformers did."""

    def plain():
        (tmp_path / "plain").mkdir()
        write_repository("BAAI/bge-reranker-base", tmp_path / "plain", corpus)
        return tmp_path / "plain"

    def roberta():
        tokenizer = tokenizer_of("roberta", corpus)
        model = build("roberta", "RobertaForSequenceClassification", vocab_size=len(tokenizer), num_labels=1)
        for part in (model, tokenizer):
            part.save_pretrained(tmp_path / "dense")
        CrossEncoder(str(tmp_path / "dense"), device="cpu", max_length=20).save_pretrained(str(tmp_path / "cross"))
        return tmp_path / "cross"

    return {"plain": plain, "roberta": roberta}


@pytest.mark.parametrize("shape", ["like_e5", "like_m3", "like_a_masked_lm", "distilbert"])
def test_a_sentence_encoder(shape, encoders, corpus, tmp_path):
    dense = str(encoders[shape]())
    source = SentenceTransformer(dense, device="cpu", model_kwargs={"dtype": torch.float32})
    opened = SentenceEncoder.open(dense)
    assert opened.source.encode(TEXTS) == pytest.approx(source.encode(TEXTS), abs=1e-5)
    assert fingerprint(opened.model) == fingerprint(SentenceEncoder.open(dense).model)
    result = schubert_hf.prune(dense, "60%", text=corpus[:30], output_dir=tmp_path / "small", **QUICK)
    assert result.kept <= 0.6
    assert result.package.facts["kind"] == SENTENCE
    assert result.package.facts["max_length"] == 23  # positions that tokens have
    small = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    assert type(small.tokenizer) is type(source.tokenizer)
    assert small.prompts == source.prompts
    assert small.encode(TEXTS) == pytest.approx(result.package.model.encode(TEXTS), abs=1e-5)


@pytest.mark.parametrize(("shape", "package"), [("plain", False), ("roberta", True)])
def test_a_reranker(shape, package, rerankers, corpus, tmp_path):
    dense = str(rerankers[shape]())
    result = schubert_hf.prune(dense, "60%", text=corpus[:30], output_dir=tmp_path / "small", **QUICK)
    assert (result.package is not None) == package
    assert not package or result.package.facts["kind"] == CROSS
    given = AutoTokenizer.from_pretrained(dense)([TEXTS], return_tensors="pt", truncation=True, max_length=20)
    with torch.no_grad():
        want = result.model.eval().cpu()(**given).logits.sigmoid().item()
    opened = CrossEncoder(str(tmp_path / "small"), device="cpu", max_length=20)
    assert opened.predict([TEXTS]) == pytest.approx([want], abs=1e-5)


@pytest.mark.slow
def test_they_open_where_this_package_is_not(encoders, rerankers, corpus, tmp_path):
    made = [(SENTENCE, *item) for item in encoders.items()] + [(CROSS, *item) for item in rerankers.items()]
    folders = []
    for kind, name, make in made:
        small, published = tmp_path / f"{name}-small", tmp_path / f"{name}-published"
        schubert_hf.prune(str(make()), "60%", text=corpus[:30], output_dir=small, **QUICK)
        published.mkdir()
        stage(small, published, f"org/{name}", license="mit", latency=False)
        folders.append((kind, str(published)))
    script = Path(__file__).parents[1] / "hub" / "open_encoder.py"
    for name, python in PYTHONS.items():
        words = script, *map("=".join, folders)
        lines = run_clean(tmp_path / name, *words, python=python, HF_HUB_OFFLINE="1")
        for line, (kind, folder) in zip(lines, folders, strict=True):
            assert_opened(json.loads(line), kind, folder)


def assert_opened(found, kind, folder):
    if kind == CROSS:
        want = CrossEncoder(folder, device="cpu").predict([("word1 word2", "word3")]).tolist()
        assert found == pytest.approx(want, abs=1e-5)
        return
    model, (*settings, embedding) = SentenceTransformer(folder, device="cpu"), found
    assert settings == [model.prompts, model.similarity_fn_name, model.max_seq_length]
    assert embedding == pytest.approx(model.encode("word1").tolist(), abs=1e-5)


def test_an_object_is_pruned_and_stays_as_it_is(corpus, tmp_path, encoders):
    source = SentenceTransformer(str(encoders["distilbert"]()), device="cpu").eval()
    before = source.encode(TEXTS)
    result = schubert_hf.prune(source, "60%", text=corpus[:30], **QUICK)
    assert type(result.package.model.tokenizer) is type(source.tokenizer)
    assert (source.encode(TEXTS) == before).all()


def test_a_masked_lm_in_memory_is_trained_on_its_own_masks(corpus, monkeypatch):
    converted = []

    def convert(model):
        converted.append(weakref.ref(ours := convert_bert(model)))
        return ours

    def prune(self, **options):
        gc.collect()
        assert [model() for model in converted] == [None]  # the pruner has a copy of its own
        return run(self, **options)

    run = SchuBertPruner.prune
    monkeypatch.setattr(schubert_hf.conversion, "convert_bert", convert)
    monkeypatch.setattr(SchuBertPruner, "prune", prune)
    model = build("roberta", "RobertaForMaskedLM", vocab_size=400)
    tokenizer = tokenizer_of("roberta", corpus)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    settings = {**QUICK, "recovery_steps": 2, "max_length": 20}
    result = schubert_hf.prune(model, "60%", text=corpus[:30], tokenizer=tokenizer, **settings)
    assert set(result.rounds[0].before) == {"loss", "mlm", "mlm_accuracy"}
    assert type(result.model).__name__ == "SchuBertForMaskedLM"
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
