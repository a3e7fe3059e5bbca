"""Sentence pairs, or other examples, made while training reads them: for corpora too large to be tokenized beforehand.

Documents come from a `datasets.IterableDataset`, which is split among the processes and knows its own position. Each
process turns a chunk of its documents at a time into shuffled pairs. What a chunk holds depends on the documents,
the seed and the number of processes alone, so a stream resumes exactly where its state was taken.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .pairs import pair_texts, require_pairable
from .sources import READ_ERRORS, TextSourceError, first_line
from .stream import POSITION, StreamError

CHUNK_DOCUMENTS = 256
CHUNK_CHARACTERS = 1 << 19  # about 1000 examples of 128 word pieces
SETTINGS = ("max_length", "seed")  # that a stream resumes with
# A place: how many chunks of the epoch and examples of the chunk at hand have been read, and where that chunk begins.
_START: dict[str, Any] = {"epoch": 0, "chunk": 0, "taken": 0, "reader": None}


class StreamedPairs(Dataset[dict[str, Any]]):
    """An endless stream of examples, read in order: every `stream[position]` is this process's next example.

    Args:
        documents: one document per row in the column `text` (see `stream_documents`), without a shuffle buffer.
        tokenizer: a BERT's tokenizer.
        max_length: word pieces per example, special tokens included.
        seed: decides where pairs are cut, which B is random, and the order of a chunk's examples.
        wanted: selects the documents that are used, e.g. `not_held_out`; all by default.
        make: from a few documents to the columns of their examples; None: `pair_texts`.

    Raises:
        TextSourceError: `max_length` leaves no room for two sentences; later, when an example is read: the text is
            too short or cannot be read.
        TokenizerError: the tokenizer has no token to begin, end, mask or pad with.
    """

    length = None  # the number of different examples is unknown

    def __init__(
        self,
        documents: IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int = 128,
        seed: int = 0,
        wanted: Callable[[str], bool] | None = None,
        make: Callable[..., dict[str, list[Any]]] | None = None,
    ) -> None:
        require_pairable(tokenizer, max_length)
        self.documents, self.tokenizer, self.wanted, self.make = documents, tokenizer, wanted, make
        self.max_length, self.seed = max_length, seed
        self.rank, self.processes = 0, 1
        self._examples: Iterator[dict[str, Any]] | None = None
        self._process = 0  # that `_examples` belongs to
        self._place = _START

    def for_process(self, rank: int, processes: int) -> StreamedPairs:
        """The share of one process, from its beginning."""
        share = copy.copy(self)
        share.rank, share.processes = rank, processes
        share._examples, share._place = None, _START
        return share

    def __getitem__(self, position: int) -> dict[str, Any]:
        if self._examples is None or self._process != os.getpid():  # a forked process would share its parent's files
            self._examples, self._process = self._read_examples(), os.getpid()
        try:
            return {**next(self._examples), POSITION: position}
        except BaseException:
            self._examples = None  # a generator that has raised is finished: reopen at the same place next time
            raise

    def state(self) -> dict[str, Any]:
        """Where this process is in the stream, as plain JSON; see `load_state`."""
        return {**{name: getattr(self, name) for name in SETTINGS}, **self._place}

    def load_state(self, states: list[dict[str, Any]] | None) -> None:
        """Continues after the examples that had been read when the states of all processes, by rank, were taken.

        Without states it begins.

        Raises:
            StreamError: the states are from a stream with other settings or another number of processes.
        """
        self._examples, self._place = None, _START
        if states is None:
            return
        saved = {"processes": len(states), **states[min(self.rank, len(states) - 1)]}
        for name in ("processes", *SETTINGS):
            if saved[name] != (value := getattr(self, name)):
                how = "as many processes as" if name == "processes" else "the settings"
                raise StreamError(
                    f"The saved stream has `{name}` {saved[name]}, this one has {value}. Resume with {how} the run "
                    "began with, or start a new run."
                )
        self._place = {name: saved[name] for name in _START}

    def without(self, positions: Iterable[int]) -> contextlib.AbstractContextManager[None]:
        """Does nothing: what has been read does not come again before the next epoch of a large corpus."""
        return contextlib.nullcontext()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_examples": None}

    def _read_examples(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from self._read_epoch(self._place["epoch"])
            if not self._place["chunk"]:
                raise TextSourceError(
                    f"The text is too short: it makes no example for process {self.rank + 1} of {self.processes}. "
                    "Give more text, hold out less of it, or use fewer processes."
                )
            self._place = {**_START, "epoch": self._place["epoch"] + 1}

    def _read_epoch(self, epoch: int) -> Iterator[dict[str, Any]]:
        # The object that is iterated keeps the state.
        reader = split_dataset_by_node(self.documents, self.rank, self.processes)
        reader.set_epoch(epoch)  # newer versions of `datasets` then change the order of the files
        if self._place["reader"] is not None:
            reader.load_state_dict(self._place["reader"])
        # `iter`, unlike `__iter__`, reads the same in a DataLoader's worker; row by row its state is exact.
        rows = reader.iter(batch_size=1)
        while texts := self._read_chunk(rows):
            examples = self._make_examples(texts)
            for taken, example in enumerate(examples[self._place["taken"] :], self._place["taken"] + 1):
                self._place = {**self._place, "taken": taken}
                yield example
            # Only chunks with examples count: an epoch without any is an error.
            chunk = self._place["chunk"] + bool(examples)
            self._place = {"epoch": epoch, "chunk": chunk, "taken": 0, "reader": reader.state_dict()}

    def _read_chunk(self, rows: Iterator[dict[str, list[str | None]]]) -> list[str | None]:
        texts: list[str | None] = []
        characters = 0
        try:
            for row in rows:
                (text,) = row["text"]
                if text and not text.isspace() and (self.wanted is None or self.wanted(text)):
                    texts.append(text)
                    characters += len(text)
                if len(texts) >= CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
                    break
        except TextSourceError:
            raise
        except READ_ERRORS as error:
            raise TextSourceError(
                f"The text cannot be read to its end: {first_line(error)} Repair or remove the file at fault, or "
                "check the connection."
            ) from error
        return texts

    def _make_examples(self, texts: list[str | None]) -> list[dict[str, Any]]:
        rng = random.Random(f"{self.seed}-{self.rank}-{self._place['epoch']}-{self._place['chunk']}")
        columns = (self.make or pair_texts)(texts, self.tokenizer, self.max_length, rng)
        examples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rng.shuffle(examples)
        return examples
