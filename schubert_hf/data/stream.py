"""An endless, shuffled, addressable stream of training examples.

A position of the stream decides the epoch, the example in that epoch's order, and its masks. So what a step trains on
depends on the seed and the step's number alone: not on the number of processes, on gradient accumulation, or on where
a run was interrupted. Resuming means starting at another position.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import SchuBertError

POSITION = "stream_position"
CHECKED = 64  # examples that show what data it is
IGNORED = -100  # label of a token that is not predicted
Batch = dict[str, Tensor]
Collator = Callable[[list[dict[str, Any]]], dict[str, Tensor]]


class StreamError(SchuBertError):
    """A stream without examples, or a saved place that belongs to another stream."""


class TokenizerError(SchuBertError):
    """A tokenizer that lacks what masked-language-model training needs."""


def require_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `TokenizerError` where one of the special tokens of BERT's examples is missing."""
    names = ("cls_token", "sep_token", "mask_token", "pad_token")
    missing = [name for name in names if getattr(tokenizer, name, None) is None]
    if missing:
        raise TokenizerError(
            f"The tokenizer `{tokenizer.name_or_path or type(tokenizer).__name__}` has no {', '.join(missing)}. "
            "Give the model's own tokenizer, or add what is missing with `tokenizer.add_special_tokens`."
        )


class ExampleStream(Dataset[dict[str, Any]]):
    """Maps a position (0, 1, 2, ...) to an example, in another order in each epoch.

    Args:
        examples: a sequence of dicts of features.
        seed: decides the order of every epoch.
        shuffle: if off, every epoch has the order of `examples`.

    Raises:
        StreamError: there are no examples.
    """

    def __init__(self, examples: Any, *, seed: int = 0, shuffle: bool = True) -> None:
        if len(examples) == 0:
            raise StreamError("The set of examples is empty. Give at least one example.")
        self.examples, self.seed, self.shuffle = examples, seed, shuffle
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)
        self._left_out: frozenset[int] = frozenset()

    @property
    def length(self) -> int | None:
        """How many different examples there are; None if that is not known."""
        return len(self.examples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {**self.examples[self._index(position)], POSITION: position}

    @contextlib.contextmanager
    def without(self, positions: Iterable[int]) -> Iterator[None]:
        """Inside it the examples of these positions come at none: in each epoch's order the next one comes instead.

        Where these are all examples there are, nothing changes.
        """
        left_out = frozenset(self._index(position) for position in positions)
        before, self._left_out = self._left_out, left_out if len(left_out) < len(self.examples) else frozenset()
        try:
            yield
        finally:
            self._left_out = before

    def _index(self, position: int) -> int:
        """Which of the examples a position has."""
        epoch, offset = divmod(position, len(self.examples))
        if self.shuffle and epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.examples), generator=generator)
        while (index := int(self._order[offset]) if self.shuffle else offset) in self._left_out:
            offset = (offset + 1) % len(self.examples)
        return index

    def state(self) -> None:
        """None, since examples are addressed by number."""

    def load_state(self, states: Any) -> None:
        """Does nothing, like `state`."""

    def digest(self) -> str:
        """Of the first of `examples`, whatever the seed; see the function `digest`."""
        return digest(self.examples[number] for number in range(min(CHECKED, len(self.examples))))


class MaskingCollator:
    """Pads a batch and masks it dynamically (Devlin et al. 2019, section 3.1).

    15 % of the tokens are predicted; of those 80 % become the mask token, 10 % a random word piece, 10 % stay. Special
    tokens are never predicted. The masks of an example depend on `seed`, its position in the stream and its tokens
    alone, not on the rest of its batch.

    Args:
        tokenizer: its own special tokens are used, such as `[MASK]` or `<mask>`.
        mlm_probability: share of the tokens that are predicted.
        seed: decides the masks.

    Raises:
        TokenizerError: the tokenizer has no token to begin, end, mask or pad with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, mlm_probability: float = 0.15, seed: int = 0) -> None:
        require_special_tokens(tokenizer)
        self.tokenizer, self.mlm_probability, self.seed = tokenizer, mlm_probability, seed
        self._special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Examples (`input_ids` and other lists or numbers) to a batch with `attention_mask` and `labels`."""
        rows = [self._mask(example, number) for number, example in enumerate(examples)]
        return {name: self._stack(name, [row[name] for row in rows]) for name in rows[0]}

    def _mask(self, example: dict[str, Any], number: int) -> dict[str, Tensor]:
        tensors = {name: torch.as_tensor(value) for name, value in example.items() if name != POSITION}
        row = {name: x if x.is_floating_point() else x.long() for name, x in tensors.items()}
        ids = row["input_ids"]  # (tokens,)
        generator = torch.Generator().manual_seed(mix_seed(self.seed, example.get(POSITION, number)))
        chosen, kind = torch.rand(2, len(ids), generator=generator)  # in [0, 1)
        random_ids = torch.randint(len(self.tokenizer), ids.shape, generator=generator)
        chosen = (chosen < self.mlm_probability) & ~torch.isin(ids, self._special)
        masked = ids.masked_fill(chosen & (kind < 0.8), self.tokenizer.mask_token_id)
        return {
            **row,
            "input_ids": torch.where(chosen & (kind >= 0.9), random_ids, masked),
            "attention_mask": row.get("attention_mask", torch.ones_like(ids)),
            "labels": ids.masked_fill(~chosen, IGNORED),
        }

    def _stack(self, name: str, values: list[Tensor]) -> Tensor:
        if values[0].ndim == 0:
            return torch.stack(values)
        padding = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)


def for_stream(collator: Collator) -> Collator:
    """A collator for the items of an `ExampleStream`: without their position, unless it masks by it."""
    return collator if isinstance(collator, MaskingCollator) else partial(_without_position, collator)


def _without_position(collator: Collator, examples: list[dict[str, Any]]) -> Batch:
    return collator([{name: value for name, value in row.items() if name != POSITION} for row in examples])


class Stream(Protocol):
    """What a training loop reads: examples by position.

    Streams other than `ExampleStream` are read in order, and resume where `state` was taken.
    """

    @property
    def length(self) -> int | None: ...

    def __getitem__(self, position: int) -> dict[str, Any]: ...

    def state(self) -> dict[str, Any] | None:
        """The process's place, as plain JSON; None where examples are addressed by number."""

    def load_state(self, states: list[dict[str, Any]] | None) -> None:
        """Continues from the places of all processes, by rank; None: from the beginning."""

    def without(self, positions: Iterable[int]) -> contextlib.AbstractContextManager[None]:
        """Inside it the examples of these positions, which have been read, do not come again, where that is known."""


class PulledBatch(NamedTuple):
    """A batch, and the place of its stream after it; None for a stream that is addressed by number."""

    tensors: dict[str, Tensor]
    state: dict[str, Any] | None


def pull(stream: Stream, collator: Collator, examples: list[dict[str, Any]]) -> PulledBatch:
    """A batch with the stream's place: in a loader's worker process nothing else has it."""
    return PulledBatch(collator(examples), stream.state())


def workers_for(stream: Stream, workers: int) -> int:
    """How many worker processes prepare batches; at most one for a stream that is read in order."""
    return workers if isinstance(stream, ExampleStream) else min(1, workers)


def digest(examples: Iterable[Mapping[str, Any]]) -> str:
    """The SHA-256 of some examples, of whatever type their numbers are: tells whether two sets begin alike."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else type(value).__name__

    rows = (json.dumps(dict(example), sort_keys=True, default=plain) for example in examples)
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers; close numbers give unrelated seeds (SplitMix64, Steele et al. 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
