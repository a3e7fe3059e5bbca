"""Sentence pairs made on the fly, for corpora that are too large to be tokenised beforehand.

As in `stream.py`, position p is one example, always the same one. The stream has as many lanes as a global batch has
examples: position p is example number p // lanes of lane p % lanes. A process that asks for its share of every batch
makes its own lanes' examples alone, and what they are does not depend on how many processes there are.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import IterableDataset
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .lanes import CHUNK_DOCUMENTS, Dealer, Marker
from .pairs import pair_texts, require_pairable
from .sources import TextSourceError
from .stream import POSITION, StreamError


def held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a document is held out from training: by its CRC-32, so whatever its place and the number of processes.

    Args:
        text: the document.
        per_mille: how many of 1000 documents are held out.
    """
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 1000 < per_mille


def not_held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a document is trained on; a function with a name, as DataLoader workers need one."""
    return not held_out(text, per_mille=per_mille)


@dataclass(frozen=True)
class _Place:
    """Where a lane is: at a chunk of its documents."""

    chunk: int = 0  # its number, counted with those that gave no examples
    start: int = 0  # examples of the lane before this chunk
    first: int = 0  # number of its first document
    epoch: int = 0  # the last epoch that gave the lane an example
    examples: list[dict[str, Any]] | None = None  # None: to be made

    def to_list(self) -> list[int]:
        return [self.chunk, self.start, self.first, self.epoch]


class StreamedPairs(Dataset[dict[str, Any]]):
    """Maps a position (0, 1, 2, ...) to an example; reads as far as it has to.

    Asking forwards within a lane is cheap; asking backwards reads again from the beginning, right but slow. The lanes
    fall into groups, each with files of its own where there are several files: the number of groups is the largest
    divisor of `lanes` that is not above `documents.num_shards`. A group's documents are dealt to its lanes (see
    `Dealer`); a lane makes pairs of a few of them at a time, in an order of its own. An epoch ends for each group on
    its own.

    Args:
        documents: one document a row in the column `text` (see `stream_documents`), not shuffled through a buffer.
        tokenizer: a BERT's tokenizer.
        lanes: examples in a global batch.
        max_length: word pieces per example, special tokens included.
        seed: decides where pairs are cut, which B is random, and the order of a chunk's examples.
        wanted: which documents are used (`not_held_out`, for instance); all by default.

    Raises:
        StreamError: there are no lanes.
        TextSourceError: `max_length` leaves no room for two sentences; later, when an example is asked for: the text
            is too short or cannot be read.
        TokenizerError: the tokenizer has no `[CLS]`, `[SEP]`, `[MASK]` or `[PAD]`.
    """

    def __init__(
        self,
        documents: IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        lanes: int,
        max_length: int = 128,
        seed: int = 0,
        wanted: Callable[[str], bool] | None = None,
    ) -> None:
        require_pairable(tokenizer, max_length)
        if lanes < 1:
            raise StreamError(f"`lanes` is {lanes}; give the number of examples in a global batch, at least 1.")
        self.documents = documents
        self.tokenizer = tokenizer
        self.lanes = lanes
        self.max_length = max_length
        self.seed = seed
        self.wanted = wanted
        shards = max(1, documents.num_shards)
        self.groups = max(number for number in range(1, min(lanes, shards) + 1) if lanes % number == 0)
        self._start_from({}, {})

    @property
    def length(self) -> None:
        """How many different examples there are: nobody knows."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        if os.getpid() != self._process:  # forked: an open file's place would be shared with the parent
            self.load_state(self.state())
        if position < 0:
            raise StreamError(f"`position` is {position}; the stream begins at 0.")
        number, lane = divmod(position, self.lanes)
        return {**self._example(lane, number), POSITION: position}

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on from here: plain JSON, small, and quickly taken.

        It holds the lanes that this object has been asked for; so with several processes the states of all of them
        are needed (`merge`). Any position can be asked for afterwards; those before a lane's next one may be slow.
        """
        # Before every lane has been asked once, lanes of a loaded state may still be asked for the first time.
        loaded = {} if self._settled else self._loaded_lanes
        lanes = {**loaded, **{lane: place.to_list() for lane, place in self._used.items()}}
        markers = {} if self._settled else dict(self._loaded_markers)
        markers.update({group: dealer.marker() for group, dealer in self._dealers.items()})
        return {
            "settings": self._settings(),
            "lanes": {str(lane): place for lane, place in sorted(lanes.items())},
            "groups": {str(group): marker.to_dict() for group, marker in sorted(markers.items())},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken, perhaps by other processes with other lanes.

        Lanes that are not in it begin at their beginning.

        Raises:
            StreamError: the state is from a stream with other settings.
        """
        settings = self._settings()
        for name, value in settings.items():
            if state["settings"].get(name) != value:
                raise StreamError(
                    f"The saved place in the stream has `{name}` {state['settings'].get(name)}; this stream has "
                    f"{value}. Continue with what the run began with, or begin anew."
                )
        self._start_from(
            {int(lane): list(place) for lane, place in state["lanes"].items()},
            {int(group): Marker(**marker) for group, marker in state["groups"].items()},
        )

    @staticmethod
    def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
        """One state of the states of several processes, each with lanes of its own; of a group the oldest marker.

        Raises:
            StreamError: there are none, or they are from streams with different settings.
        """
        if not states or any(state["settings"] != states[0]["settings"] for state in states):
            raise StreamError(f"{len(states)} states cannot be merged. Give at least one, all of the same stream.")
        lanes: dict[str, list[int]] = {}
        groups: dict[str, dict[str, Any]] = {}
        for state in states:
            for lane, place in state["lanes"].items():
                lanes[lane] = min(place, lanes.get(lane, place))
            for group, marker in state["groups"].items():
                groups[group] = min(marker, groups.get(group, marker), key=lambda marker: int(marker["number"]))
        return {"settings": states[0]["settings"], "lanes": lanes, "groups": groups}

    def __getstate__(self) -> dict[str, Any]:
        names = ("documents", "tokenizer", "lanes", "max_length", "seed", "wanted", "groups")
        return {**{name: getattr(self, name) for name in names}, "state": self.state()}

    def __setstate__(self, values: dict[str, Any]) -> None:
        state = values.pop("state")
        self.__dict__.update(values)
        self.load_state(state)

    def _settings(self) -> dict[str, int]:
        return {"lanes": self.lanes, "groups": self.groups, "max_length": self.max_length, "seed": self.seed}

    def _start_from(self, lanes: dict[int, list[int]], markers: dict[int, Marker]) -> None:
        self._process = os.getpid()
        self._dealers: dict[int, Dealer] = {}
        self._used: dict[int, _Place] = {}
        self._asked: dict[int, int] = {}
        self._settled = False
        self._loaded_lanes = lanes
        self._loaded_markers = markers

    def _example(self, lane: int, number: int) -> dict[str, Any]:
        if self._asked.get(lane, number) != number:
            self._settle()
        self._asked[lane] = number
        place = self._used.get(lane)
        if place is None or number < place.start:
            place = self._begin(lane, number)
        while place.examples is None or number >= place.start + len(place.examples):
            place = self._next(lane, place)
        return place.examples[number - place.start]

    def _settle(self) -> None:
        """A lane is asked again, so each lane that this process will need has been asked: keeps no others' documents.

        Until then they are kept, so that every first lane finds its documents although another one was asked before.
        """
        if self._settled:
            return
        self._settled = True
        for group, dealer in self._dealers.items():
            for seat in dealer.kept:
                if group * dealer.lanes + seat not in self._used:
                    dealer.drop(seat)

    def _begin(self, lane: int, number: int) -> _Place:
        """Puts a lane to its saved place, or to its beginning where that place is too late."""
        group, seat = divmod(lane, self.lanes // self.groups)
        if group not in self._dealers:
            self._dealers[group] = self._open(group)
        dealer, saved = self._dealers[group], self._saved(lane)
        place = saved if number >= saved.start else _Place()
        if lane in self._used or place is not saved or seat not in dealer.kept:
            dealer.seek(seat, place.first)
        self._used[lane] = place
        return place

    def _open(self, group: int) -> Dealer:
        size, marker = self.lanes // self.groups, self._loaded_markers.get(group, Marker())
        documents = self.documents.shard(num_shards=self.groups, index=group)
        dealer = Dealer(documents, size, wanted=self.wanted, marker=marker)
        for seat in range(0 if self._settled else size):
            first = self._saved(group * size + seat).first
            if first >= marker.number:
                dealer.seek(seat, first)
        return dealer

    def _saved(self, lane: int) -> _Place:
        chunk, start, first, epoch = self._loaded_lanes.get(lane, (0, 0, 0, 0))
        return _Place(chunk, start, first, epoch)

    def _next(self, lane: int, place: _Place) -> _Place:
        """The place at the next chunk, or at the same one with its examples made."""
        group, seat = divmod(lane, self.lanes // self.groups)
        dealer = self._dealers[group]
        chunk, start = place.chunk, place.start
        if place.examples is not None:
            chunk, start = chunk + 1, start + len(place.examples)
        # First chunks differ in size, lest all lanes come to the end of a chunk, which takes time, in the same step.
        documents = dealer.next_chunk(seat, CHUNK_DOCUMENTS if chunk else 1 + lane % CHUNK_DOCUMENTS)
        rng = random.Random(f"{self.seed}-{lane}-{chunk}")
        columns = pair_texts([document.text for document in documents], self.tokenizer, self.max_length, rng)
        examples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rng.shuffle(examples)
        epoch = documents[0].epoch if examples else place.epoch
        # Epochs of a few documents may pass some lanes by; but a lane gets the longest of them before so many.
        if documents[0].epoch - epoch > 3 * dealer.lanes:
            raise TextSourceError(
                f"The text is too short for {self.lanes} examples at a time: epoch after epoch one of them gets no "
                "two sentences. Give more text, or a smaller batch."
            )
        # Together and last: an error or an interrupt before leaves the lane where it was.
        dealer.release(seat, documents)
        self._used[lane] = place = _Place(chunk, start, documents[0].number, epoch, examples)
        return place
