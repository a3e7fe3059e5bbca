"""Deals a stream of documents to lanes, so that every process can follow it and keep its own lanes' documents alone.

Each document goes to the lane to which the fewest characters have been dealt so far. That depends on the documents
before it and on nothing else: not on which lanes are asked for, nor when. A reader can go back to a marker, so what
has been dealt need not be kept.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from datasets import IterableDataset

from .sources import READ_ERRORS, TextSourceError, first_line

CHUNK_DOCUMENTS = 32
CHUNK_CHARACTERS = 1 << 16
ROWS_PER_MARKER = 16
MOST_MARKERS = 32


class Document(NamedTuple):
    """A text, its number in the endless stream of its reader (filtered ones not counted), and the pass it is from."""

    number: int
    epoch: int
    text: str


@dataclass(frozen=True)
class Marker:
    """A place that a reader can go back to.

    Args:
        number: how many documents were dealt before it.
        epoch: how often the corpus was read to its end before it.
        dealt: how many characters of those documents each lane got; empty: none.
        reader: the state that `datasets` gives for this place; None for the beginning of the corpus.
    """

    number: int = 0
    epoch: int = 0
    dealt: list[int] = field(default_factory=list)
    reader: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `Marker(**it)` is the marker again."""
        return asdict(self)


@dataclass
class _Queue:
    first: int  # number of the first document of the chunk at hand: what resuming has to read again
    wants: int  # documents with smaller numbers have been taken
    documents: deque[Document] = field(default_factory=deque)


class Dealer:
    """Reads a corpus over and over and deals its documents.

    Documents are kept for the lanes of `seek` alone. For those, memory holds what was dealt and not yet taken: as
    lanes get equal shares, little more than the longest document for each.

    Args:
        documents: one document a row in the column `text`; no shuffle buffer, whose state cannot be saved.
        lanes: how many lanes there are.
        wanted: whether a document is used at all; all by default.
        marker: where to begin.
    """

    def __init__(
        self,
        documents: IterableDataset,
        lanes: int,
        *,
        wanted: Callable[[str], bool] | None = None,
        marker: Marker | None = None,
    ) -> None:
        self.lanes = lanes
        self._documents = documents
        self._wanted = wanted
        self._origin = marker or Marker()
        self._queues: dict[int, _Queue] = {}
        self._markers: list[Marker] = []
        self._go_to(self._origin)

    @property
    def kept(self) -> frozenset[int]:
        """The lanes that documents are kept for."""
        return frozenset(self._queues)

    @property
    def backlog(self) -> int:
        """How many documents have been dealt to those lanes and not yet been taken."""
        return sum(len(queue.documents) for queue in self._queues.values())

    def seek(self, lane: int, first: int = 0) -> None:
        """Lets the next chunk of a lane begin with its first document from number `first` on; may read again."""
        self._queues[lane] = _Queue(first=first, wants=first)
        if first < self.number:
            places = [Marker(), self._origin, *self._markers]
            self._go_to(max((place for place in places if place.number <= first), key=lambda place: place.number))

    def drop(self, lane: int) -> None:
        """Keeps no documents for a lane any more."""
        self._queues.pop(lane, None)

    def next_chunk(self, lane: int, most: int = CHUNK_DOCUMENTS) -> list[Document]:
        """The next few documents of a lane, all of one epoch; at least one. They stay until `release`.

        Args:
            lane: one of those of `seek`.
            most: how many documents, unless `CHUNK_CHARACTERS` for `CHUNK_DOCUMENTS` of them are reached before.

        Raises:
            TextSourceError: a whole epoch has no document, or the corpus cannot be read on.
        """
        waiting = self._queues[lane].documents
        while not waiting:
            self._read()
        chunk: list[Document] = []
        characters, epoch = 0, waiting[0].epoch
        while len(chunk) < most and characters < CHUNK_CHARACTERS * most // CHUNK_DOCUMENTS:
            while len(waiting) == len(chunk) and self.epoch == epoch:
                self._read()
            if len(waiting) == len(chunk) or waiting[len(chunk)].epoch != epoch:
                break
            chunk.append(waiting[len(chunk)])
            characters += len(chunk[-1].text)
        return chunk

    def release(self, lane: int, chunk: list[Document]) -> None:
        """Takes the chunk that `next_chunk` gave last from the lane; from now on it is the lane's chunk at hand."""
        queue = self._queues[lane]
        queue.first = chunk[0].number
        for _ in chunk:
            queue.documents.popleft()

    def marker(self) -> Marker:
        """The latest known place before everything that a kept lane still needs, its chunk at hand included."""
        needed = min((queue.first for queue in self._queues.values()), default=self.number)
        while len(self._markers) > 1 and self._markers[1].number <= needed:
            del self._markers[0]
        return self._markers[0]

    def _go_to(self, marker: Marker) -> None:
        self.number, self.epoch = marker.number, marker.epoch
        dealt = marker.dealt or [0] * self.lanes
        self._heap = [(characters, lane) for lane, characters in enumerate(dealt)]
        heapq.heapify(self._heap)
        # Kept are the places before it: a lane whose chunk at hand is older may still need one.
        self._markers = [*(place for place in self._markers if place.number < marker.number), marker]
        self._epoch_began = marker.number if marker.reader is None else -1
        self._rows_since_marker = 0
        self._open(marker.reader)

    def _open(self, state: dict[str, Any] | None) -> None:
        # A dataset of its own: `datasets` keeps the place in the object that is read. All of it, not this process's
        # nor this DataLoader worker's share: `iter` leaves that to us, where `__iter__` would not. One row at a time:
        # then the state is exact.
        self._reader = self._documents.shard(num_shards=1, index=0)
        if state is not None:
            self._reader.load_state_dict(state)
        self._rows: Iterator[dict[str, list[str | None]]] = self._reader.iter(batch_size=1)

    def _read(self) -> None:
        """Deals the documents of one row, or goes on to the next epoch."""
        try:
            row = next(self._rows, None)
            if row is None:
                self._end_epoch()
            else:
                self._deal_row(row["text"])
        except BaseException as error:
            # An iterator that has raised looks like one at its end: read again from the last marker when asked again.
            self._go_to(self._markers[-1])
            if isinstance(error, TextSourceError) or not isinstance(error, READ_ERRORS):
                raise
            raise TextSourceError(
                f"The corpus cannot be read on, about document {self.number} of the stream: {first_line(error)} "
                "Mend or remove the file at fault, or check the connection."
            ) from error

    def _deal_row(self, texts: list[str | None]) -> None:
        for text in texts:
            if text and not text.isspace() and (self._wanted is None or self._wanted(text)):
                self._deal(text)
        self._rows_since_marker += 1
        if self._rows_since_marker >= ROWS_PER_MARKER:
            self._mark(self._reader.state_dict())

    def _end_epoch(self) -> None:
        if self.number == self._epoch_began:
            raise TextSourceError(
                "The corpus, or the part of it that a group of lanes reads, has no document to train on. "
                "Give more text, or hold out less of it."
            )
        self.epoch += 1
        self._epoch_began = self.number
        self._open(None)
        self._mark(None)

    def _deal(self, text: str) -> None:
        characters, lane = self._heap[0]  # of equal ones the lowest lane
        heapq.heapreplace(self._heap, (characters + len(text), lane))
        queue = self._queues.get(lane)
        if queue is not None and self.number >= queue.wants:
            queue.documents.append(Document(self.number, self.epoch, text))
            queue.wants = self.number + 1
        self.number += 1

    def _mark(self, reader: dict[str, Any] | None) -> None:
        dealt = [0] * self.lanes
        for characters, lane in self._heap:
            dealt[lane] = characters
        self._markers.append(Marker(self.number, self.epoch, dealt, reader))
        self._rows_since_marker = 0
        self.marker()  # drops what no lane needs
        if len(self._markers) > MOST_MARKERS:  # every second, so that resuming reads at most a few per cent more
            del self._markers[1:-1:2]
