"""Trains a WordPiece vocabulary like BERT's on raw text; checks what a tokenizer needs for pretraining."""

from __future__ import annotations

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

from ..errors import SchuBertError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = 400  # characters; rare scripts of an encyclopedia would displace English word pieces


class TokenizerError(SchuBertError):
    """A tokenizer that lacks what masked-language-model training needs."""


def require_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `TokenizerError` where one of the special tokens of BERT's examples is missing."""
    names = ("cls_token", "sep_token", "mask_token", "pad_token")
    missing = [name for name in names if getattr(tokenizer, name, None) is None]
    if missing:
        raise TokenizerError(
            f"The tokenizer `{tokenizer.name_or_path or type(tokenizer).__name__}` has no {', '.join(missing)}. "
            "Give a BERT's tokenizer, or add them with `tokenizer.add_special_tokens`."
        )


def train_wordpiece(
    documents: Dataset, *, vocab_size: int, max_length: int, lowercase: bool = True
) -> BertTokenizerFast:
    """Trains a WordPiece tokenizer (Wu et al. 2016) with BERT's normalisation, `[PAD]` at 0.

    Args:
        documents: a dataset with the column `text`.
        vocab_size: word pieces, special tokens included; fewer where the text has no more.
        max_length: what the tokenizer truncates to when asked; the model's number of positions.
        lowercase: lower-case the text and strip its accents.
    """
    # The trainer numbers characters that continue a word in the order of a hash map, and breaks ties by these numbers.
    # So a first pass collects them, and a second one gets them in a fixed order: the same text, the same vocabulary.
    collected = _train(documents, SPECIAL_TOKENS, vocab_size=1, lowercase=lowercase)
    characters = sorted(token for token in collected if token.startswith("##"))
    vocabulary = _train(documents, SPECIAL_TOKENS + characters, vocab_size=vocab_size, lowercase=lowercase)
    tokenizer = _new_tokenizer(vocabulary, lowercase=lowercase)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=lowercase, model_max_length=max_length)


def _new_tokenizer(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _train(documents: Dataset, first: list[str], *, vocab_size: int, lowercase: bool) -> dict[str, int]:
    tokenizer = _new_tokenizer({}, lowercase=lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        continuing_subword_prefix="##",
        limit_alphabet=ALPHABET,
        show_progress=False,
    )
    texts = ([text for text in batch["text"] if text] for batch in documents.iter(batch_size=1000))
    tokenizer.train_from_iterator(texts, trainer=trainer, length=len(documents))
    return tokenizer.get_vocab()
