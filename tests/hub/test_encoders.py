"""Sentence encoders and cross-encoders on the Hub, and opened in a clean process where our package is out of reach."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from strangers import TOKEN, run_clean

from schubert_hf import SchuBertForSequenceClassification
from schubert_hf.commands import main
from schubert_hf.encoders.cross_encoder import CrossEncoder as OpenedCrossEncoder
from schubert_hf.encoders.sentence_encoder import SentenceEncoder
from schubert_hf.hub.page import opener
from schubert_hf.hub.record import Record

SCRIPT = Path(__file__).with_name("open_encoder.py")
FACTS = {"kind": "SentenceTransformer", "width": 15, "dense_width": 15, "map_parameters": 180, "texts": 99}
FIGURES = {"max_length": 17, "cosine": 0.9512, "rank_correlation": 0.9, "neighbours": 0.8}


def add_record(folder, record, facts):
    source = {"hidden_sizes": [15, 15], "filter_sizes": [19, 19], "head_counts": [5, 5]}
    source |= {"key_query_sizes": [9, 9], "value_sizes": [6, 6]}
    (folder / "pruning.json").write_text(json.dumps({**record["run"], "source": source, "encoder": facts}))


@pytest.fixture
def encoder(folder, record, tmp_path):
    """A folder as the front door writes it, and the embedding of a text."""
    modules = [Transformer(str(folder), max_seq_length=17), Pooling(11, "cls"), Normalize()]
    prompts = {"query": "word7 ", "document": ""}
    given = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, similarity_fn_name="dot")
    opened = SentenceEncoder.open(given)
    dense_map = torch.randn(15, 11), torch.randn(15)
    target = tmp_path / "encoder"
    opened.save(target, opened.model, dense_map)
    add_record(target, record, FACTS | FIGURES)
    return target, opened.with_model(opened.model, dense_map).encode("word1")


@pytest.fixture
def reranker(folder, record, tmp_path):
    torch.manual_seed(0)
    SchuBertForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    opened = OpenedCrossEncoder.open(CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Tanh()))
    target = tmp_path / "reranker"
    opened.save(target, opened.model)
    add_record(target, record, {"kind": "CrossEncoder", "labels": 1, "max_length": 23})
    return target, opened.source.predict([("word1 word2", "word3")])


@pytest.mark.slow
def test_they_open_anywhere_from_disk_and_from_the_hub(encoder, reranker, worker, hub, tmp_path):
    folder, expected = encoder
    files = set(worker("publish", folder, "org/encoder")["value"]["files"])
    assert {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"} <= files
    assert {"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "README.md"} <= files
    here = f"SentenceTransformer={folder}", f"CrossEncoder={reranker[0]}"
    there = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    lines = run_clean(tmp_path / "offline", SCRIPT, *here, HF_HUB_OFFLINE="1")
    lines += run_clean(tmp_path / "online", SCRIPT, "SentenceTransformer=org/encoder", **there)
    offline, scores, online = map(json.loads, lines)
    for *settings, embedding in (offline, online):
        assert settings == [{"query": "word7 ", "document": ""}, "dot", 17]
        assert embedding == pytest.approx(expected.tolist(), abs=1e-5)
    assert scores == pytest.approx(reranker[1].tolist(), abs=1e-5)


def test_pages(encoder, reranker, capsys):
    for (folder, _), tag, words in (
        (encoder, "sentence-similarity", ["stored vectors stay valid; cosine to the dense embeddings 0.951", "0.900"]),
        (reranker, "text-ranking", ["model = CrossEncoder(", "(23 word pieces)"]),
    ):
        main(["card", str(folder), "--name", "org/small", "--no-latency"])
        page = (folder / "README.md").read_text()
        data = ModelCard(page).data
        assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", tag)
        assert {"sentence-transformers", "pruned"} <= set(data.tags)
        assert '"org/small", trust_remote_code=True)' in page
        for word in words:
            assert word in page
        assert f"import {opener(Record.of_folder(folder))}\n" in page
    narrow = {**FACTS, "width": 11, "rank_correlation": 0.9, "max_length": 17}
    run = json.loads((encoder[0] / "pruning.json").read_text())
    (encoder[0] / "pruning.json").write_text(json.dumps({**run, "encoder": narrow}))
    main(["card", str(encoder[0]), "--no-latency"])
    page = (encoder[0] / "README.md").read_text()
    assert "have 11 dimensions, the dense model's 15" in page
    assert "stay valid" not in page


def test_pages_of_fine_tuned_encoders_know_what_opens_them(encoder, reranker, tmp_path):
    """sentence-transformers saves its own files, but not the record of the run."""
    for kind, (folder, _), tag in (
        (SentenceTransformer, encoder, "sentence-similarity"),
        (CrossEncoder, reranker, "text-ranking"),
    ):
        tuned = tmp_path / "tuned" / kind.__name__
        kind(str(folder), device="cpu").save_pretrained(str(tuned), create_model_card=False)
        main(["card", str(tuned), "--name", "org/tuned", "--no-latency"])
        page = (tuned / "README.md").read_text()
        data = ModelCard(page).data
        assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", tag)
        assert f'model = {kind.__name__}("org/tuned", trust_remote_code=True)' in page
        assert f"limited to {17 if kind is SentenceTransformer else 23} word pieces" in page
        assert "AutoModel" not in page
        assert "of the dense model" not in page
