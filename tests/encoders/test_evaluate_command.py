"""`schubert evaluate`, on every kind of model that it knows."""

import json
import sys

import pytest
from transformers import BertForPreTraining, BertForSequenceClassification, BertForTokenClassification, BertModel

import schubert_hf
from schubert_hf.commands import main


@pytest.fixture
def data(tmp_path, corpus):
    """Held-out text, a file in SQuAD's layout and MRPC's dev.tsv."""
    (tmp_path / "text.txt").write_text("\n\n".join(corpus[:20]))
    answer = {"text": "The", "answer_start": 0}
    paragraphs = [
        {"context": text, "qas": [{"id": str(n), "question": text[:40], "answers": [answer]}]}
        for n, text in enumerate(corpus[:20])
    ]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    rows = [f"{n % 2}\t1\t2\t{text[:50]}\t{corpus[n + n % 2][:50]}" for n, text in enumerate(corpus[:10])]
    (tmp_path / "dev.tsv").write_text("\n".join(["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows]))
    return tmp_path


def evaluate(capsys, *words):
    main(["evaluate", *map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_sentence_encoder_is_its_own_equal(sentence_transformer, data, capsys):
    sentence_transformer().save_pretrained(str(data / "dense"))
    given = ["--text", data / "text.txt", "--squad", data / "dev.json", "--mrpc", data, "--max-texts", 30]
    found = evaluate(capsys, data / "dense", "--dense", data / "dense", *given)
    assert found["text"] == pytest.approx({"cosine": 1, "rank_correlation": 1, "neighbours": 1, "texts": 30}, abs=1e-4)
    squad = found["squad"]
    assert squad["questions"] == squad["paragraphs"] == 20
    assert squad["mrr@10"] == squad["dense mrr@10"] == squad["stored mrr@10"] > 0
    assert found["mrpc"]["average precision"] == found["mrpc"]["dense average precision"]


def test_a_cross_encoder_agrees_with_itself(cross_encoder, data, capsys):
    cross_encoder.save_pretrained(str(data / "cross"))
    found = evaluate(capsys, data / "cross", "--dense", data / "cross", "--text", data / "text.txt", "--max-texts", 12)
    assert found["text"]["logits"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to evaluate on"),
        (["--text", "text.txt"], "does not say where the dense model is"),
        (["--text", "text.txt", "--dense", "nothing"], "`nothing` is no sentence encoder"),
        (["--text", "text.txt", "--max-texts", "0"], "`max_texts` is 0; allowed is a whole number of at least 1"),
        (["--squad", "x.json", "--max-questions", "-1"], "`max_questions` is -1; allowed is a whole number"),
        (["--tasks", "STSBenchmark"], "mteb, which is not installed"),
    ],
)
def test_what_is_missing_is_named(sentence_transformer, data, monkeypatch, words, message):
    monkeypatch.chdir(data)
    monkeypatch.setitem(sys.modules, "mteb", None)
    sentence_transformer().save_pretrained("dense")
    with pytest.raises(SystemExit, match=message):
        main(["evaluate", "dense", *words])


def test_other_models_have_no_index(cross_encoder, data):
    cross_encoder.save_pretrained(str(data / "cross"))
    with pytest.raises(SystemExit, match="is no sentence encoder; `--squad`"):
        main(["evaluate", str(data / "cross"), "--dense", str(data / "cross"), "--squad", str(data / "dev.json")])


@pytest.mark.parametrize("pairs", [False, True])
def test_a_trimmed_classifier_is_asked_in_its_own_words(bert_folder, data, capsys, pairs):
    """Words that the text does not use are gone, so nothing but the numbers of the others has changed."""
    dense = bert_folder(BertForSequenceClassification, num_labels=1 if pairs else 5)
    schubert_hf.trim(str(dense), "99.99%", text=str(data / "text.txt"), output_dir=data / "trimmed")
    trimmed = schubert_hf.load(data / "trimmed")
    assert trimmed.config.vocab_size < schubert_hf.load(dense).config.vocab_size
    given = ["--dense", dense, "--text", data / "text.txt", "--max-texts", 20]
    found = evaluate(capsys, data / "trimmed", *given)
    assert found["text"]["logits"] == pytest.approx(1)


def test_a_tagger_of_other_words_cannot_be_compared(bert_folder, data):
    dense = bert_folder(BertForTokenClassification)
    schubert_hf.trim(str(dense), "90%", text=str(data / "text.txt"), output_dir=data / "trimmed")
    with pytest.raises(SystemExit, match=r"Trim the dense model alike \(`schubert trim`\)"):
        main(["evaluate", str(data / "trimmed"), "--dense", str(dense), "--text", str(data / "text.txt")])


def test_pretraining_heads_that_only_the_weights_name_are_compared(bert_folder, data, capsys):
    dense = bert_folder(BertForPreTraining)
    config = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    schubert_hf.SchuBertForPreTraining.from_pretrained(dense).save_pretrained(data / "both")
    found = evaluate(capsys, data / "both", "--dense", dense, "--text", data / "text.txt", "--max-texts", 12)
    assert found["text"]["mlm_logits"] == found["text"]["nsp_logits"] == 1


def test_bare_encoders_have_nothing_to_agree_on(bert_folder, data):
    dense = str(bert_folder(BertModel))
    with pytest.raises(SystemExit, match="is a SchuBertModel, which has no head"):
        main(["evaluate", dense, "--dense", dense, "--text", str(data / "text.txt")])
