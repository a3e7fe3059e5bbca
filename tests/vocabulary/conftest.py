"""Tokenizers of every kind that can be rewritten, trained on real text: novels, from the repository's default run."""

from pathlib import Path

import pytest
import transformers
from relatives import SPECIAL
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

NOVELS = Path(__file__).parents[2] / "examples" / "default" / "text" / "valid.txt"


@pytest.fixture(scope="session")
def novels():
    """Two parts of a real text, paragraph by paragraph: one to choose words by, one that is new."""
    paragraphs = [text for text in NOVELS.read_text(encoding="utf-8").split("\n") if len(text) > 40]
    return paragraphs[0:300:2], paragraphs[1:300:2]


def wordpiece(texts):
    raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return raw, trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)


def byte_level_bpe(texts):
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return raw, trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def plain_bpe(texts):
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    return raw, trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)


def unigram(texts):
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    return raw, trainers.UnigramTrainer(vocab_size=900, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)


KINDS = {made.__name__: made for made in (wordpiece, byte_level_bpe, plain_bpe, unigram)}


@pytest.fixture(scope="session", params=KINDS)
def any_tokenizer(request, novels):
    """A tokenizer of each kind, with a word that was added to it."""
    raw, trainer = KINDS[request.param](novels[0])
    raw.train_from_iterator(novels[0] + novels[1], trainer)
    named = {
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, **named)
    made.add_tokens(["Heathcliff-the-added"])
    return made
