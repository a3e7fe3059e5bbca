"""Sentence encoders and cross-encoders through the front door: what comes out is what went in, only smaller."""

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import BertForSequenceClassification

import schubert_hf
from schubert_hf import PruningConfig
from schubert_hf.conversion import convert_bert
from schubert_hf.front.arguments import PruneArguments
from schubert_hf.front.jobs import open_job

QUICK = {
    "rounds": 1,
    "recovery_steps": 2,
    "calibration_examples": 16,
    "batch_size": 4,
    "eval_examples": 8,
    "max_length": 24,
    "report_to": "none",
    "threads": 1,
}
TEXTS = ["The king sees a bird at sea.", "A river.", "The doctor follows the old farmer near the red door 7."]


def prune(model, target, corpus, **settings):
    return schubert_hf.prune(model, target, text=corpus, **{**QUICK, **settings})


def test_the_result_is_a_sentence_encoder_like_the_dense_one(sentence_transformer, corpus, tmp_path):
    dense = sentence_transformer(similarity_fn_name="dot", truncate_dim=15)
    dense.save_pretrained(str(tmp_path / "dense"))
    state = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    result = prune(str(tmp_path / "dense"), "60%", corpus, output_dir=tmp_path / "small")
    opened = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    assert type(opened[0].model).__name__ == "SchuBertModel"
    assert opened.prompts == dense.prompts
    assert (opened.max_seq_length, opened.similarity_fn_name, opened.truncate_dim) == (30, "dot", 15)
    for settings in ({}, {"prompt_name": "query"}):
        found = opened.encode(TEXTS, **settings)
        assert found.shape == (3, 15)
        assert torch.allclose(torch.tensor(found), torch.tensor(result.package.model.encode(TEXTS, **settings)))
    record = json.loads((tmp_path / "small" / "pruning.json").read_text())["encoder"]
    assert record["kind"] == "SentenceTransformer"
    assert {"cosine", "rank_correlation", "neighbours"} <= set(record)
    in_memory = prune(dense, "60%", corpus)
    expected = result.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in in_memory.model.state_dict().items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize(("pooling", "dense"), [("mean", None), ("cls", 13), (("mean", "cls"), None)])
def test_the_width_stays_where_channels_were_cut(sentence_transformer, corpus, tmp_path, pooling, dense):
    encoder = sentence_transformer(pooling, dense)
    result = prune(encoder, "75%", corpus, dimensions="h", recovery_steps=0, output_dir=tmp_path / "small")
    assert result.model.config.hidden_size < 20
    opened = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    assert opened.encode(TEXTS).shape == encoder.encode(TEXTS).shape
    facts = result.package.facts
    assert facts["width"] == facts["dense_width"]
    assert facts["cosine"] > 0.7


def test_a_result_is_pruned_again(sentence_transformer, corpus, tmp_path):
    """Each time with channels cut, so that two maps lead back to the dense width."""
    cut = {"dimensions": "h", "multiple_of": 1, "recovery_steps": 0}
    prune(sentence_transformer(), "85%", corpus, **cut, output_dir=tmp_path / "once")
    once = SentenceTransformer(str(tmp_path / "once"), device="cpu")
    again = prune(once, "85%", corpus, **cut, output_dir=tmp_path / "again")
    assert again.model.config.hidden_size < once[0].model.config.hidden_size
    opened = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert len(opened) == len(once) + 1
    expected = torch.tensor(once.encode(TEXTS))
    found = torch.tensor(opened.encode(TEXTS))
    assert torch.allclose(found, torch.tensor(again.package.model.encode(TEXTS)))
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.7


def test_nothing_of_a_result_is_frozen(sentence_transformer, corpus):
    result = prune(sentence_transformer("cls", 13), "75%", corpus)
    assert all(parameter.requires_grad for parameter in result.package.model.parameters())


def test_a_page_in_the_working_folder_has_its_name(sentence_transformer, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prune(sentence_transformer(), "90%", corpus, output_dir=".")
    assert f"\n# {tmp_path.name}\n" in Path("README.md").read_text()


def test_own_space_leaves_embeddings_narrow(sentence_transformer, corpus, tmp_path):
    result = prune(
        sentence_transformer(), "75%", corpus, dimensions="h", own_space=True, output_dir=tmp_path / "small"
    )
    width = result.model.config.hidden_size
    assert width < 20
    assert SentenceTransformer(str(tmp_path / "small"), device="cpu").encode(TEXTS).shape == (3, width)
    assert "cosine" not in result.package.facts


def test_a_cross_encoder_keeps_its_settings(cross_encoder, corpus, tmp_path):
    cross_encoder.save_pretrained(str(tmp_path / "dense"))
    result = prune(str(tmp_path / "dense"), "70%", corpus, output_dir=tmp_path / "small")
    opened = CrossEncoder(str(tmp_path / "small"), device="cpu")
    assert type(opened[0].model).__name__ == "SchuBertForSequenceClassification"
    assert isinstance(opened.activation_fn, torch.nn.Tanh)
    assert (opened.max_seq_length, opened.num_labels) == (cross_encoder.max_seq_length, 1)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])]
    assert torch.allclose(torch.tensor(opened.predict(pairs)), torch.tensor(result.package.model.predict(pairs)))
    in_memory = prune(cross_encoder, "70%", corpus)
    assert torch.equal(in_memory.model.classifier.weight, result.model.classifier.weight)
    assert Path(tmp_path / "small" / "modeling_schubert.py").exists()


@pytest.mark.parametrize(("activation", "seen"), [(torch.nn.Sigmoid, True), (torch.nn.Softmax, False)])
def test_the_level_of_several_scores_is_kept_where_each_counts_by_itself(bert_folder, corpus, activation, seen):
    """A sigmoid's scores rise where all logits do, which a softmax does not see."""
    folder = bert_folder(BertForSequenceClassification, num_labels=3)
    dense = CrossEncoder(str(folder), device="cpu", max_length=24, activation_fn=activation())
    job = open_job(PruneArguments(model=dense, text=corpus, max_length=24), PruningConfig(eval_examples=8))
    batch = job.collator([job.held_out[number] for number in range(8)])
    risen = convert_bert(job.model)
    with torch.no_grad():
        risen.classifier.bias += 2
    loss = job.objective.taught_by(job.model, batch, temperature=1.0, seed=0)(risen)(batch)["logits"]
    assert (loss.item() > 0.1) == seen
    assert dense.config.problem_type is None
