"""Which words of a vocabulary stay: by number, by how much of a text they cover, or by name."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from .pieces import Pieces, TrimError

BATCH = 256  # texts that are tokenized at a time
SHOWN = 5  # unknown words that an error names
Counts = NDArray[np.int64]  # by id, how often a word occurs


@dataclass(frozen=True)
class Selection:
    """What is asked for: a number of words, a share of a text's tokens, or words by name; one of the three.

    Raises:
        TrimError: it is none of them, or a share outside (0, 1].
    """

    number: int | None = None
    coverage: float | None = None
    words: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, vocabulary: int | float | str | os.PathLike[str] | Sequence[str]) -> Selection:
        """Of 8000 or "8000", of "99.9%" or 0.999, of a file with one word on each line, or of a list of words.

        Raises:
            TrimError: it is none of these, or the file cannot be read.
        """
        if isinstance(vocabulary, str):
            text = vocabulary.strip().replace("_", "").replace(",", "")
            if re.fullmatch(r"\d+", text):
                return cls(number=int(text))
            if match := re.fullmatch(r"(-?\d+(?:\.\d+)?|\.\d+)\s*%", text):
                return cls._share(float(match[1]) / 100, vocabulary)
            if re.fullmatch(r"\d*\.\d+", text):
                return cls._share(float(text), vocabulary)
        if isinstance(vocabulary, str | os.PathLike):
            return cls(words=_read_words(Path(vocabulary)))
        if isinstance(vocabulary, float):
            return cls._share(vocabulary, vocabulary)
        if isinstance(vocabulary, int) and not isinstance(vocabulary, bool):
            return cls(number=vocabulary)
        if isinstance(vocabulary, Sequence) and all(isinstance(word, str) for word in vocabulary):
            return cls(words=tuple(vocabulary))
        raise TrimError(
            f'`vocabulary` is {vocabulary!r}; give a number of words, a share of the text\'s tokens such as "99.9%", '
            "or a file with one word on each line."
        )

    @classmethod
    def _share(cls, share: float, given: object) -> Selection:
        if not 0 < share <= 1:
            raise TrimError(f"`vocabulary` is {given!r}; a share of the text's tokens is above 0 % and at most 100 %.")
        return cls(coverage=share)

    def choose(self, pieces: Pieces, needed: Collection[int], counts: Counts | None) -> set[int]:
        """Ids that stay: those that are needed, and the most frequent others that the text uses, or those named.

        Args:
            needed: ids that stay in any case.
            counts: of the text's tokens; needed unless words are named.

        Raises:
            TrimError: fewer words than are needed, or as many as there are, or words that the tokenizer does not have.
        """
        kept = set(needed)
        if self.words is not None:
            return kept | self._named(pieces)
        assert counts is not None
        if self.number is not None and not len(kept) <= self.number < len(pieces.ids):
            raise TrimError(
                f"`vocabulary` is {self.number:,} words; allowed is at least {len(kept):,}, which are special words, "
                f"single characters and what else nothing can be spelled without, and less than the tokenizer's own "
                f"{len(pieces.ids):,}."
            )
        by_id = {number: word for word, number in pieces.ids.items()}
        total, covered = int(counts.sum()), int(counts[sorted(kept)].sum())
        for number in np.argsort(-counts, kind="stable").tolist():
            if not counts[number] or (self.coverage is not None and covered >= self.coverage * total):
                break
            if number in kept:
                continue
            more = pieces.reach([by_id[number]]) - kept
            if self.number is not None and len(kept) + len(more) > self.number:
                break
            kept |= more
            covered += int(counts[sorted(more)].sum())
        return kept

    def _named(self, pieces: Pieces) -> set[int]:
        assert self.words is not None
        unknown = [word for word in dict.fromkeys(self.words) if word not in pieces.ids]
        if unknown:
            shown = ", ".join(f"`{textwrap.shorten(word, 40)}`" for word in unknown[:SHOWN])
            raise TrimError(
                f"`vocabulary` names {len(unknown):,} words that the tokenizer does not have: {shown}"
                f"{', ...' if len(unknown) > SHOWN else ''}. Write its words as it does, one on each line, such as "
                f"{', '.join(f'`{word}`' for word in list(pieces.ids)[-3:])}."
            )
        return pieces.reach(self.words)


def _read_words(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TrimError(
            f'`vocabulary` is `{path}`, which is no number, no share such as "99.9%", and no file that can be read: '
            f"{error.strerror if isinstance(error, OSError) else 'it is not UTF-8'}."
        ) from error
    words = tuple(line.strip() for line in lines if line.strip())
    if not words:
        raise TrimError(f"`vocabulary` is `{path}`, an empty file. Give one word on each line.")
    return words


def whole_texts(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of a tokenizer that neither cuts texts nor pads them."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Encoding]:
    """Texts without special tokens, a few at a time."""
    left = iter(texts)
    while batch := list(islice(left, BATCH)):
        yield from tokenizer.encode_batch(batch, add_special_tokens=False)


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> Counts:
    """How often each id below `size` occurs in texts."""
    counts = np.zeros(size, np.int64)
    for encoding in encode(tokenizer, texts):
        counts += np.bincount(np.asarray(encoding.ids, np.int64), minlength=size)
    return counts
