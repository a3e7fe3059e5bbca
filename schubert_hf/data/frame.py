"""Special tokens around one text and around two, such as `[CLS] A [SEP] B [SEP]` and `<s> A </s></s> B </s>`.

They are read off what the tokenizer itself makes of a word, so every family's own order comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

PROBE = "a"
Ids = list[int]


class Frame(NamedTuple):
    """Special tokens before, between and behind texts; `segments` where the second text has a segment of its own."""

    start: Ids
    middle: Ids
    end: Ids
    segments: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """The frame of a tokenizer; that of BERT, with its own tokens, if it adds none itself."""
        probe = tokenizer(PROBE, PROBE, return_special_tokens_mask=True, verbose=False)
        segments = any(probe.get("token_type_ids", ()))
        marked = zip(probe["special_tokens_mask"], probe["input_ids"], strict=True)
        runs = [(added, [token for _, token in run]) for added, run in groupby(marked, key=lambda pair: pair[0])]
        if [added for added, _ in runs] != [1, 0, 1, 0, 1]:
            start, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
            return cls(start, end, end, segments)
        return cls(runs[0][1], runs[2][1], runs[4][1], segments)

    @property
    def size(self) -> int:
        """Special tokens of a pair."""
        return len(self.start) + len(self.middle) + len(self.end)

    def one(self, text: Sequence[int]) -> Ids:
        """An example of one text."""
        return [*self.start, *text, *self.end]

    def pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[Ids, Ids]:
        """An example of two texts, and its segments."""
        head, tail = [*self.start, *first, *self.middle], [*second, *self.end]
        return [*head, *tail], [0] * len(head) + [int(self.segments)] * len(tail)
