"""Pairs are framed, fit, are half random, and their labels tell the truth."""

import math
import random

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from starts import train_wordpiece
from transformers import PreTrainedTokenizerBase

from schubert_hf.data.pairs import make_pairs, pair_document, split_sentences, tokenize_documents
from schubert_hf.data.stream import TokenizerError
from schubert_hf.data.text import TextSourceError


def parts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """A and B of `[CLS] A [SEP] B [SEP]`."""
    middle = ids.index(tokenizer.sep_token_id)
    return ids[1:middle], ids[middle + 1 : -1]


def numbered(sizes: list[list[int]]) -> list[list[list[tuple[int, int, int]]]]:
    """Documents of sentences of tokens; a token is (document, sentence, place)."""
    return [
        [[(number, place, token) for token in range(size)] for place, size in enumerate(document)]
        for number, document in enumerate(sizes)
    ]


@pytest.mark.parametrize("length", [8, 9, 32])
def test_every_example_is_framed_and_fits(documents: Dataset, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    for example in make_pairs(documents, tokenizer, max_length=length, seed=3):
        ids, first, second = example["input_ids"], *parts(example["input_ids"], tokenizer)
        assert len(ids) <= length
        assert first
        assert second
        assert ids == [tokenizer.cls_token_id, *first, tokenizer.sep_token_id, *second, tokenizer.sep_token_id]
        assert example["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert not set(tokenizer.all_special_ids) & {*first, *second}


def test_half_are_random(documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    labels = [
        label for seed in range(5) for label in make_pairs(documents, tokenizer, seed=seed)["next_sentence_label"]
    ]
    assert len(labels) > 300
    assert abs(sum(labels) - len(labels) / 2) < 4 * math.sqrt(len(labels)) / 2  # four standard deviations


def test_labels_tell_the_truth(corpus: list[str], documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    # At this length nothing is cut off, so A and B can be found in the text again.
    texts = [tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in corpus]
    for example in make_pairs(documents, tokenizer, max_length=500, seed=0):
        first, second = (tokenizer.decode(part) for part in parts(example["input_ids"], tokenizer))
        (home,) = {number for number, text in enumerate(texts) if first in text}
        if example["next_sentence_label"] == 0:
            assert f"{first} {second}" in texts[home]
        else:
            assert second not in texts[home]
            assert any(second in text for text in texts)


def test_truncation_keeps_order_and_origin() -> None:
    documents = numbered([[7, 9, 4, 12, 8, 11], [10, 10, 10], [5, 6]])
    for seed in range(200):
        for first, second, is_random in pair_document(documents, 0, 17, random.Random(seed)):
            assert {token[0] for token in first} == {0}
            assert first == sorted(first)
            assert second == sorted(second)
            assert len({token[0] for token in second}) == 1
            assert (second[0][0] != 0) == is_random
            assert is_random or first[-1][1] < second[0][1]


def test_no_text_is_lost() -> None:
    documents = numbered([[2] * 40, [2] * 7])
    for seed in range(200):
        pairs = pair_document(documents, 0, 21, random.Random(seed))
        read = {token[1] for first, second, _ in pairs for token in [*first, *second] if token[0] == 0}
        assert read >= set(range(39)), seed  # only a last sentence without successor may be left


def test_deterministic_in_the_seed(documents: Dataset, tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> None:
    assert make_pairs(documents, tokenizer, max_length=32, seed=0)[:] == pairs[:]
    assert make_pairs(documents, tokenizer, max_length=32, seed=1)[:] != pairs[:]


@given(
    sizes=st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=1, max_size=4),
    length=st.integers(8, 40),
    seed=st.integers(0, 9),
)
def test_any_documents_make_fitting_pairs(sizes: list[list[int]], length: int, seed: int) -> None:
    documents = numbered(sizes)
    for number in range(len(documents)):
        for first, second, is_random in pair_document(documents, number, length - 3, random.Random(seed)):
            assert first
            assert second
            assert len(first) + len(second) + 3 <= length
            assert is_random <= (len(documents) > 1)


@given(texts=st.lists(st.none() | st.text(alphabet="aå. !?\n\t\0\u200b中。", max_size=30), max_size=6))
def test_any_texts_can_be_tokenized(tokenizer: PreTrainedTokenizerBase, texts: list[str | None]) -> None:
    for document in tokenize_documents([split_sentences(text or "") for text in texts], tokenizer, 6):
        assert document
        assert all(0 < len(sentence) <= 6 for sentence in document)


def test_a_single_document_has_random_pairs_too(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    whole = Dataset.from_dict({"text": [" ".join(corpus)]})
    labels = make_pairs(whole, tokenizer, max_length=32)["next_sentence_label"]
    assert 0.4 < sum(labels) / len(labels) < 0.6


def test_sentences_end_where_they_should() -> None:
    assert split_sentences('He left. "Did he?" she asked!\nYes.') == ["He left.", '"Did he?"', "she asked!", "Yes."]
    assert split_sentences("猫。犬！ 鳥") == ["猫。", "犬！", "鳥"]
    assert split_sentences("It cost 3.50 euros") == ["It cost 3.50 euros"]


@pytest.mark.parametrize("texts", [["Only one sentence"], ["", None, "  "], ["\u200b", "\u200b \u200b"]])
def test_too_little_text(tokenizer: PreTrainedTokenizerBase, texts: list[str | None]) -> None:
    with pytest.raises(TextSourceError, match="too short"):
        make_pairs(Dataset.from_dict({"text": texts}), tokenizer)


def test_too_short_a_length(documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TextSourceError, match="`max_length` is 7"):
        make_pairs(documents, tokenizer, max_length=7)


def test_tokenizer_without_mask(documents: Dataset) -> None:
    lacking = train_wordpiece(documents, vocab_size=160, max_length=32)
    lacking.mask_token = None
    with pytest.raises(TokenizerError, match="mask_token"):
        make_pairs(documents, lacking)
