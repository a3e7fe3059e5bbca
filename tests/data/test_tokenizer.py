"""The vocabulary is BERT's kind and survives its folder."""

from pathlib import Path

import pytest
from datasets import Dataset
from starts import train_wordpiece
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schubert_hf.data.stream import TokenizerError, require_special_tokens


def test_saved_folder_opens_as_the_same_tokenizer(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, corpus: list[str]
) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(corpus)["input_ids"] == tokenizer(corpus)["input_ids"]
    assert again.model_max_length == tokenizer.model_max_length == 32
    assert again.pad_token_id == tokenizer.pad_token_id == 0


def test_bert_normalisation(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("The ZOË") == tokenizer.tokenize("the zoe")
    assert tokenizer.unk_token not in tokenizer.tokenize("The ZOË")


def test_cased_keeps_case_and_accents(documents: Dataset) -> None:
    cased = train_wordpiece(documents, vocab_size=160, max_length=32, lowercase=False)
    assert cased.tokenize("Zoë") != cased.tokenize("zoe")


def test_pairs_of_texts_are_framed(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = tokenizer("the cat", "a dog")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "the", "cat", "[SEP]", "a", "dog", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_decoding_joins_word_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.decode(tokenizer("the catdog", add_special_tokens=False)["input_ids"]) == "the catdog"


def test_training_is_deterministic(documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    again = train_wordpiece(documents, vocab_size=160, max_length=32)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert len(tokenizer) <= 160


def test_a_tokenizer_without_mask_is_refused(documents: Dataset) -> None:
    lacking = train_wordpiece(documents, vocab_size=160, max_length=32)
    lacking.mask_token = None
    with pytest.raises(TokenizerError, match="has no mask_token"):
        require_special_tokens(lacking)
