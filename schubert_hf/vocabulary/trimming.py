"""Trims a tokenizer and the model that reads its ids."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..cost import ParameterCost
from ..run.progress import quiet
from ..shape import Shape
from .comparison import compare_tokens
from .pieces import Pieces, TrimError
from .rows import named_ids, with_rows
from .selection import Counts, Selection, count_tokens, whole_texts

APART = 10  # without held-out text, one text in so many is kept apart to measure on
MEASURED = 2000  # held-out texts, at most


@dataclass(frozen=True)
class Trimmed:
    """A model and its tokenizer with fewer words.

    Attributes:
        facts: as JSON, with values before and after: `words`, `parameters`; `coverage`, the share of the text's tokens
            that are words that stay; and the figures of `compare_tokens` on `held_out` text.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    facts: dict[str, Any]


def trim_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    selection: Selection,
    *,
    texts: Iterable[str] | None = None,
    held_out: Iterable[str] | None = None,
    always: Sequence[str] = (),
) -> Trimmed:
    """Keeps the words that are selected, and what is needed to spell every other.

    Args:
        model: a SchuBERT, which stays as it is.
        texts: that words are counted in; not needed where they are named.
        held_out: text to compare both tokenizers on. None: every tenth of `texts`, with words chosen from the others;
            the words that stay are those of all texts.
        always: texts whose words stay, such as an encoder's prompts.

    Raises:
        TrimError: the tokenizer cannot be rewritten, does not fit the model, or what is asked for cannot be had; or
            the texts are empty.
    """
    pieces, size = Pieces(tokenizer), model.config.vocab_size
    if max(pieces.ids.values()) >= size:
        raise TrimError(
            f"The tokenizer has ids up to {max(pieces.ids.values()):,}, the model {size:,} embeddings. Give the "
            "tokenizer that it was trained with."
        )
    whole = whole_texts(tokenizer.backend_tokenizer)
    words = set(pieces.ids.values())
    named = {one for value in named_ids(model).values() for one in (value if isinstance(value, list) else [value])}
    needed = pieces.needed() | (named & words)
    prompts = set(count_tokens(whole, always, size).nonzero()[0].tolist())
    needed |= pieces.reach(word for word, number in pieces.ids.items() if number in prompts)
    used, apart, rest = _count(whole, texts, size, keep_apart=held_out is None)
    kept = sorted(selection.choose(pieces, needed, used))
    made = _with_backend(tokenizer, pieces.keep(kept))
    unknown = tokenizer.unk_token
    compared: dict[str, Any] | None = None
    if held_out is not None:
        compared = compare_tokens(whole, whole_texts(made.backend_tokenizer), held_out, unknown)
    elif apart:
        smaller = pieces.keep(selection.choose(pieces, needed, rest))
        compared = compare_tokens(whole, whole_texts(smaller), apart, unknown)
    small = with_rows(model, kept)
    facts = {
        "words": [len(pieces.ids), len(kept)],
        "rows": [size, len(kept)],
        "parameters": [int(ParameterCost(one)(Shape.of(one.config))) for one in (model, small)],
        "coverage": None if used is None else float(used[kept].sum() / used.sum()),
        "held_out": compared,
    }
    return Trimmed(small, made, facts)


def _count(
    tokenizer: Tokenizer, texts: Iterable[str] | None, size: int, *, keep_apart: bool
) -> tuple[Counts | None, list[str], Counts | None]:
    """Counts of all texts' tokens, some of the texts, and the counts of the others; None and none without texts."""
    if texts is None:
        return None, [], None
    apart: list[str] = []

    def others() -> Iterable[str]:
        for number, text in enumerate(texts):
            if keep_apart and number % APART == APART - 1 and len(apart) < MEASURED:
                apart.append(text)
            else:
                yield text

    rest = count_tokens(tokenizer, others(), size)
    used = rest + count_tokens(tokenizer, apart, size)
    if not used.any():
        raise TrimError("The text to count words in is empty. Give a text, documents separated by blank lines.")
    return used, apart if rest.any() else [], rest


def _with_backend(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    """The same tokenizer of transformers around another one of `tokenizers`.

    Raises:
        TrimError: saved and opened again, it would have other ids.
    """
    made: Any = copy.copy(tokenizer)
    made._tokenizer = backend
    made.init_kwargs = {name: value for name, value in made.init_kwargs.items() if name not in _HELD}
    for name in _HELD:  # some classes hold what they were made of
        made.__dict__.pop(f"_{name}", None)
    with tempfile.TemporaryDirectory() as folder, quiet():
        made.save_pretrained(folder)
        opened = type(tokenizer).from_pretrained(folder)
    if opened.get_vocab() != made.get_vocab() or opened.unk_token_id != made.unk_token_id:
        raise TrimError(
            f"A {type(tokenizer).__name__} numbers words in its own way when it is opened, so the words that stay "
            "would get other ids. Leave the vocabulary as it is."
        )
    trimmed: PreTrainedTokenizerBase = made
    return trimmed


_HELD = ("vocab", "merges", "added_tokens_decoder", "tokenizer_object", "tokenizer_file", "vocab_file", "merges_file")
