"""The embedded default: a plain BERT that knows English, within its size."""

import json
import re
from pathlib import Path

import pytest
from accelerate import Accelerator
from transformers import AutoTokenizer, BertForMaskedLM, BertForPreTraining, pipeline

from schubert_hf.conversion import load_for_pretraining
from schubert_hf.data.pairs import make_pairs
from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.data.text import load_documents
from schubert_hf.training.evaluate import evaluate, unigram_loss
from schubert_hf.training.objective import PretrainingObjective

DEFAULT = Path(__file__).resolve().parents[2] / "examples" / "default"
MODEL = DEFAULT / "model"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def test_it_lies_within_its_size() -> None:
    megabyte = 1_000_000
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 12 * megabyte
    assert sum(path.stat().st_size for path in (DEFAULT / "text").iterdir()) < 3 * megabyte


def test_plain_transformers_opens_it_whole() -> None:
    _, loaded = BertForPreTraining.from_pretrained(MODEL, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]


def test_a_novel_that_it_has_not_seen_is_english_to_it(tokenizer) -> None:
    pairs = make_pairs(load_documents(DEFAULT / "text" / "valid.txt"), tokenizer).select(range(96))
    held_out, collator = ExampleStream(pairs, shuffle=False), MaskingCollator(tokenizer, seed=1)
    model = load_for_pretraining(MODEL)
    losses = evaluate(Accelerator(), PretrainingObjective(model), held_out, collator, batch_size=32)
    # Counted on the very text that is scored: the lowest loss that a model without context could have.
    unigram = unigram_loss(pairs, held_out, collator, vocab_size=len(tokenizer), special_ids=tokenizer.all_special_ids)
    assert losses["mlm"] < 0.75 * unigram
    assert losses["mlm_accuracy"] > 0.25


@pytest.mark.parametrize(
    ("text", "sensible"),
    [
        ("She opened the [MASK] and went into the garden.", {"door", "gate", "window", "house"}),
        ("He was born in [MASK] 1923.", {"january", "july", "june", "may", "april"}),
        ("[MASK] was a very good man.", {"he", "it", "she", "there"}),
    ],
)
def test_it_fills_in_sensible_words(text, sensible, tokenizer) -> None:
    fill = pipeline("fill-mask", model=BertForMaskedLM.from_pretrained(MODEL), tokenizer=tokenizer)
    assert sensible & {guess["token_str"] for guess in fill(text)}


def test_the_card_tells_what_was_recorded() -> None:
    record = json.loads((MODEL / "pretraining.json").read_text())
    card = (MODEL / "README.md").read_text()
    rows = re.findall(r"^\| (\d): .*\| ([\d,]+) \| (\S+) \| (\d+) % \| ([\d.]+) \|$", card, re.M)
    assert len(rows) == len(record["stages"]) == 4
    for (_, steps, rate, masked, loss), stage in zip(rows, record["stages"], strict=True):
        assert int(steps.replace(",", "")) == stage["steps"]
        assert float(rate) == stage["learning_rate"]
        assert int(masked) == round(100 * stage["mask_probability"])
        assert loss == f"{stage['held_out'][-1]['mlm']:.3f}"
    hours = sum(stage["seconds"] for stage in record["stages"]) / 3600
    assert f"{hours:.2f} hours" in card
