"""`prune(vocabulary=...)`: trims first, then prunes; a share of the parameters is one of the model that was given."""

import json

import pytest
import torch
from relatives import QUICK as SETTINGS
from relatives import build, tokenizer_of
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import schubert_hf
from schubert_hf import SchuBertForPreTraining
from schubert_hf.commands import main
from schubert_hf.cost import BudgetError, format_size
from schubert_hf.front.arguments import SettingError
from schubert_hf.hub.inspection import inspect
from schubert_hf.run.checkpoint import CheckpointError
from schubert_hf.vocabulary.pieces import TrimError

QUICK = {**SETTINGS, "max_length": 20}


@pytest.fixture
def folder(tiny_config, tokenizer, tmp_path):
    """A pretraining checkpoint whose head for masked words is found, too."""
    torch.manual_seed(1)
    SchuBertForPreTraining(tiny_config()).save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    return str(tmp_path / "dense")


def test_it_is_trimmed_then_pruned_to_a_share_of_what_was_given(folder, corpus, tmp_path):
    before = schubert_hf.load(folder).num_parameters()
    alone = schubert_hf.trim(folder, "90%", text=corpus)
    result = schubert_hf.prune(folder, "60%", text=corpus, vocabulary="90%", output_dir=tmp_path / "small", **QUICK)
    assert result.model.config.vocab_size == alone.model.config.vocab_size == len(result.tokenizer)
    assert result.tokenizer.get_vocab() == alone.tokenizer.get_vocab()
    assert 0.5 * before < result.model.num_parameters() <= 0.6 * before
    assert result.source_size == before
    assert result.kept == result.model.num_parameters() / before
    record = json.loads((tmp_path / "small" / "pruning.json").read_text())
    assert record["provenance"]["vocabulary"]["words"] == alone.facts["words"]
    assert record["provenance"]["base_model"]["name"] == "dense"
    found = inspect(tmp_path / "small")
    assert (found.dense.parameters.total, found.parameters.total) == (before, result.size)
    page = (tmp_path / "small" / "README.md").read_text()
    assert "Trimmed from **160 to" in page
    assert (
        f"| before | {format_size(alone.facts['parameters'][1])} | {alone.facts['parameters'][1] / before:.1%}" in page
    )
    assert "vocabulary" in page.partition("schubert_hf.prune(")[2].partition(")")[0]
    assert len(AutoTokenizer.from_pretrained(tmp_path / "small")) == found.config.vocab_size


def test_a_target_that_trimming_meets_alone_is_refused(folder, corpus, tmp_path):
    with pytest.raises(BudgetError, match=r"trimming the vocabulary leaves .*`schubert trim`"):
        schubert_hf.prune(folder, "99%", text=corpus, vocabulary=["king"], output_dir=tmp_path / "small", **QUICK)
    assert not (tmp_path / "small").exists()


def test_work_is_not_less_for_a_smaller_vocabulary(folder, corpus):
    result = schubert_hf.prune(folder, "60%", text=corpus, vocabulary="90%", cost="flops", **QUICK)
    assert result.source_size == schubert_hf.load(folder).config.flops(128)


def test_a_resumed_run_needs_the_same_vocabulary(folder, corpus, tmp_path):
    given = {"text": corpus, "output_dir": tmp_path / "small", **QUICK}
    schubert_hf.prune(folder, "60%", vocabulary="90%", **given)
    (tmp_path / "small" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="belongs to another run"):
        schubert_hf.prune(folder, "60%", vocabulary="80%", resume=True, **given)
    again = schubert_hf.prune(folder, "60%", vocabulary="90%", resume=True, **given)
    assert again.output_dir is not None


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_other_families_are_trimmed_and_pruned(family, corpus, tmp_path):
    tokenizer = tokenizer_of(family, corpus)
    name = {"roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel"}[family]
    build(family, name, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    result = schubert_hf.prune(
        tmp_path / "dense",
        "50%",
        text=[text[:80] for text in corpus],
        vocabulary="80%",
        output_dir=tmp_path / "small",
        **QUICK,
    )
    assert result.kept <= 0.5
    own = AutoTokenizer.from_pretrained(tmp_path / "small")
    assert len(own) == schubert_hf.load(tmp_path / "small").config.vocab_size < len(tokenizer)


def test_a_sentence_encoder_and_the_command(corpus, text_file, tmp_path, tokenizer, capsys):
    from test_trim import _encoder

    _encoder(tmp_path / "bert", tokenizer).save_pretrained(str(tmp_path / "dense"))
    words = ["prune", str(tmp_path / "dense"), "--target", "50%", "--vocabulary", "90%", "--text", str(text_file)]
    words += ["--output-dir", str(tmp_path / "small"), "--rounds", "1", "--recovery-steps", "0"]
    words += ["--calibration-examples", "8", "--batch-size", "4", "--eval-examples", "8", "--report-to", "none"]
    main([*words, "--threads", "1"])
    assert "Vocabulary: 160 ->" in capsys.readouterr().out
    opened = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    assert opened.encode(corpus[:2]).shape == (2, 13)
    assert len(opened.tokenizer) == opened[0].model.config.vocab_size < 160


def test_words_are_counted_in_pairs_and_streams(folder, corpus, text_file, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"a": one, "b": "captain"}) + "\n" for one in corpus[:20]), encoding="utf-8")
    one = schubert_hf.prune(folder, "60%", text=pairs, pair_columns="a,b", vocabulary="95%", **QUICK)
    assert one.provenance["vocabulary"]["words"][1] < 160
    streamed = schubert_hf.prune(
        folder, "60%", text=text_file, streaming=True, eval_text=corpus[:9], vocabulary="95%", **QUICK
    )
    whole = schubert_hf.trim(folder, "95%", text=text_file)
    assert streamed.tokenizer.get_vocab() == whole.tokenizer.get_vocab()


def test_a_task_needs_words_by_name(folder, tmp_path, tokenizer):
    BertForSequenceClassification(
        BertConfig(vocab_size=160, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=9)
    ).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="there is no text to count words in"):
        schubert_hf.prune(tmp_path, "60%", task="sst2", vocabulary="90%", report_to="none")
    with pytest.raises(TrimError, match="at most 100 %"):
        schubert_hf.prune(folder, "60%", text=["a"], vocabulary="900%")
