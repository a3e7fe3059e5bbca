"""What a smaller vocabulary changes in a text: how many more tokens it needs, which words are split differently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Encoding, Tokenizer

from .selection import encode


def compare_tokens(before: Tokenizer, after: Tokenizer, texts: Iterable[str], unknown: str | None) -> dict[str, Any]:
    """Figures of both tokenizers on texts.

    Args:
        unknown: the word that stands for what is unknown; None: there is none.

    Returns:
        `texts`; `tokens` and `unknown`, before and after; `words`, as the tokenizer splits the text before it cuts
        words into pieces, and how many of them are `changed`.
    """
    figures: dict[str, Any] = {"texts": 0, "tokens": [0, 0], "unknown": [0, 0], "words": 0, "changed": 0}
    texts = list(texts)
    for pair in zip(encode(before, texts), encode(after, texts), strict=True):
        old, new = (_by_word(encoding) for encoding in pair)
        figures["texts"] += 1
        for place, encoding in enumerate(pair):
            figures["tokens"][place] += len(encoding)
            figures["unknown"][place] += 0 if unknown is None else encoding.tokens.count(unknown)
        figures["words"] += len(old)
        figures["changed"] += sum(new.get(word) != parts for word, parts in old.items())
    return figures


def _by_word(encoding: Encoding) -> dict[int | None, list[str]]:
    words: dict[int | None, list[str]] = {}
    for word, part in zip(encoding.word_ids, encoding.tokens, strict=True):
        words.setdefault(word, []).append(part)
    return words
