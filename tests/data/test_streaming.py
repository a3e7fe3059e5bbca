"""A position is one example: whatever was asked before, by how many processes, and wherever a run was resumed."""

import json
import pickle
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from datasets import IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from schubert_hf.data.lanes import CHUNK_DOCUMENTS, MOST_MARKERS, Dealer, Marker
from schubert_hf.data.pairs import pair_texts
from schubert_hf.data.stream import POSITION, StreamError
from schubert_hf.data.streaming import StreamedPairs, held_out, not_held_out
from schubert_hf.data.text import TextSourceError

LENGTH = 32
LANES = 4
READ: list[str] = []  # what `rows` has been made to give


def rows(shards: list[list[str]]) -> Iterator[dict[str, str]]:
    for shard in shards:
        for text in shard:
            READ.append(text)
            yield {"text": text}


def source(texts: list[str], shards: int) -> IterableDataset:
    size = -(-len(texts) // shards)
    return IterableDataset.from_generator(
        rows, gen_kwargs={"shards": [texts[begin : begin + size] for begin in range(0, len(texts), size)]}
    )


def json_again(state: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(state))


def read(stream: StreamedPairs, first: int, last: int, rank: int = 0, processes: int = 1, size: int = 1) -> dict:
    """The examples of one process of several, of the global batches `first` to `last`, by position."""
    share = LANES // processes
    examples = {}
    for step in range(first, last):
        start = step * LANES + rank * share
        for begin in range(start, start + share, size):
            for position in range(begin, min(begin + size, start + share)):
                examples[position] = stream[position]
    return examples


@pytest.fixture(params=[1, 2, 8], ids=lambda shards: f"{shards} shards")
def build(request: pytest.FixtureRequest, corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> Any:
    """New streams over the corpus in so many shards, all alike."""

    def new(**options: Any) -> StreamedPairs:
        chosen = {"lanes": LANES, "max_length": LENGTH, "seed": 3, **options}
        return StreamedPairs(source(corpus, request.param), tokenizer, **chosen)

    return new


STEPS = 110  # of four examples; the corpus makes about 330, so this is more than one epoch


def test_an_example_is_a_pair_and_its_position(build: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    stream = build()
    for position in range(40):
        example = stream[position]
        assert set(example) == {"input_ids", "token_type_ids", "next_sentence_label", POSITION}
        assert example[POSITION] == position
        assert len(example["input_ids"]) == len(example["token_type_ids"]) <= LENGTH
        assert example["input_ids"][0] == tokenizer.cls_token_id


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_read_what_one_reads(build: Any, processes: int) -> None:
    one = read(build(), 0, STEPS)
    shares = [read(build(), 0, STEPS, rank, processes, size=rank + 1) for rank in range(processes)]
    assert {position: example for share in shares for position, example in share.items()} == one


@pytest.mark.parametrize("step", [0, 1, 17, 60, 80, 100])
def test_resumed_is_uninterrupted(build: Any, step: int) -> None:
    whole = read(build(), 0, STEPS)
    stream = build()
    read(stream, 0, step)
    resumed = build()
    resumed.load_state(json_again(stream.state()))
    assert read(resumed, step, STEPS) == {p: example for p, example in whole.items() if p >= step * LANES}


@pytest.mark.parametrize("step", [1, 60, 95])
@pytest.mark.parametrize("processes", [1, 4])
def test_merged_states_serve_any_number_of_processes(build: Any, step: int, processes: int) -> None:
    whole = read(build(), 0, STEPS)
    halves = [build(), build()]
    for rank, stream in enumerate(halves):
        read(stream, 0, step, rank, 2)
    state = json_again(StreamedPairs.merge([stream.state() for stream in halves]))
    for rank in range(processes):
        stream = build()
        stream.load_state(state)
        for position, example in read(stream, step, STEPS, rank, processes).items():
            assert example == whole[position]


def test_resumed_again_and_again(build: Any) -> None:
    """Ten processes' lives, each of a few steps, with states taken before, between and without steps."""
    whole = read(build(), 0, 100)
    state = build().state()
    for first in range(0, 100, 10):
        stream = build()
        stream.load_state(state)
        stream.load_state(json_again(stream.state()))
        assert read(stream, first, first + 10) == {p: whole[p] for p in range(first * LANES, (first + 10) * LANES)}
        state = json_again(stream.state())


def test_a_lane_that_no_state_has_begins_at_its_beginning(build: Any) -> None:
    stream = build()
    read(stream, 0, 60, 0, 2)
    resumed = build()
    resumed.load_state(stream.state())
    assert read(resumed, 60, 70) == read(build(), 60, 70)


def test_resuming_does_not_read_from_the_start(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [f"{text} {number}." for number in range(10) for text in corpus]  # 800 documents
    for shards, groups in ((40, 4), (41, 4), (1, 1)):
        stream = StreamedPairs(source(texts, shards), tokenizer, lanes=LANES, max_length=LENGTH)
        assert stream.groups == groups
        read(stream, 0, 500)
        state = json_again(stream.state())
        resumed = StreamedPairs(source(texts, shards), tokenizer, lanes=LANES, max_length=LENGTH)
        resumed.load_state(state)
        READ.clear()
        after = read(resumed, 500, 502)
        reread = len(READ)
        READ.clear()
        assert read(StreamedPairs(source(texts, shards), tokenizer, lanes=LANES, max_length=LENGTH), 500, 502) == after
        if shards > 1:  # `datasets` reads a shard from its start
            assert reread < 0.6 * len(READ)
        assert Counter(READ).most_common(1)[0][1] == 1  # nor does a beginning read anything twice


def test_a_process_opens_the_files_of_its_lanes(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    stream = StreamedPairs(source(corpus, 4), tokenizer, lanes=LANES, max_length=LENGTH)
    READ.clear()
    read(stream, 0, 20, rank=1, processes=4)
    assert set(READ) <= set(corpus[20:40])


@pytest.mark.parametrize(("lanes", "shards", "groups"), [(4, 1, 1), (4, 3, 2), (4, 9, 4), (6, 5, 3), (7, 6, 1)])
def test_groups(corpus: list[str], tokenizer: PreTrainedTokenizerBase, lanes: int, shards: int, groups: int) -> None:
    assert StreamedPairs(source(corpus, shards), tokenizer, lanes=lanes).groups == groups


def test_backwards_is_forwards(build: Any) -> None:
    forwards = read(build(), 0, 40)
    stream = build()
    assert {position: stream[position] for position in reversed(range(0, 160, 3))} == {
        position: forwards[position] for position in range(0, 160, 3)
    }


@given(positions=st.lists(st.integers(0, 300), max_size=12), resume=st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_any_order_is_right(
    corpus: list[str], tokenizer: PreTrainedTokenizerBase, positions: list[int], resume: int
) -> None:
    def new() -> StreamedPairs:
        return StreamedPairs(source(corpus[:30], 2), tokenizer, lanes=LANES, max_length=LENGTH)

    forwards = read(new(), 0, 76)
    stream = new()
    for number, position in enumerate(positions):
        if number == resume:
            state = json_again(stream.state())
            stream = new()
            stream.load_state(state)
        assert stream[position] == forwards[position]


def test_pickled_midway(build: Any) -> None:
    whole = read(build(), 0, 60)
    stream = build()
    read(stream, 0, 30)
    again = pickle.loads(pickle.dumps(stream))
    assert read(again, 30, 60) == read(stream, 30, 60) == {p: whole[p] for p in range(30 * LANES, 60 * LANES)}


def test_workers_read_what_the_process_reads(build: Any) -> None:
    """Forked after the first step: neither the parent's open files nor `datasets`' shares for workers come in."""
    whole = read(build(), 0, 8)
    stream = build()
    read(stream, 0, 1)
    batches = [list(range(start, start + 2)) for start in range(LANES, 8 * LANES, 2)]
    loader = DataLoader(stream, batch_sampler=batches, collate_fn=list, num_workers=2, multiprocessing_context="fork")
    assert [example for batch in loader for example in batch] == [whole[p] for p in range(LANES, 8 * LANES)]


def dealt(dealer: Dealer, epochs: int) -> dict[int, list[list[tuple[int, int, str]]]]:
    """The chunks of each lane until every lane has come through so many epochs."""
    chunks: dict[int, list[list[tuple[int, int, str]]]] = {lane: [] for lane in range(dealer.lanes)}
    for lane, given_ in chunks.items():
        while True:
            chunk = dealer.next_chunk(lane)
            if chunk[0].epoch >= epochs:
                break
            dealer.release(lane, chunk)
            given_.append([tuple(document) for document in chunk])
    return chunks


def for_all_lanes(dealer: Dealer) -> Dealer:
    for lane in range(dealer.lanes):
        dealer.seek(lane)
    return dealer


@pytest.mark.parametrize("shards", [1, 5])
def test_a_document_is_used_once_an_epoch_by_one_lane(corpus: list[str], shards: int) -> None:
    chunks = dealt(for_all_lanes(Dealer(source(corpus, shards), 3)), epochs=3)
    for epoch in range(3):
        used = [text for lane in chunks.values() for chunk in lane for _, of, text in chunk if of == epoch]
        assert sorted(used) == sorted(corpus)
    for lane in chunks.values():
        assert all(len({epoch for _, epoch, _ in chunk}) == 1 for chunk in lane)
        assert all(1 <= len(chunk) <= CHUNK_DOCUMENTS for chunk in lane)
        assert [number for chunk in lane for number, _, _ in chunk] == sorted(n for chunk in lane for n, _, _ in chunk)
    sizes = [sum(len(text) for chunk in lane for _, _, text in chunk) for lane in chunks.values()]
    assert max(sizes) - min(sizes) <= max(map(len, corpus))


def test_dealing_is_to_the_lane_with_the_fewest_characters() -> None:
    texts = ["a" * size for size in (5, 3, 3, 1, 4, 1, 9)]
    dealer = for_all_lanes(Dealer(source(texts, 1), 3))
    lanes = {n: lane for lane, chunks in dealt(dealer, 1).items() for chunk in chunks for n, _, _ in chunk}
    # 5 0 0, 5 3 0, 5 3 3, 5 4 3, 5 4 7, 5 5 7, 14 5 7
    assert [lanes[number] for number in range(7)] == [0, 1, 2, 1, 2, 1, 0]


def test_held_out_and_training_are_apart_and_complete(corpus: list[str]) -> None:
    def texts(wanted: Any) -> list[str]:
        chunks = dealt(for_all_lanes(Dealer(source(corpus, 2), 2, wanted=wanted)), 1)
        return [text for lane in chunks.values() for chunk in lane for _, _, text in chunk]

    out = texts(lambda text: held_out(text, per_mille=200))
    kept = texts(lambda text: not_held_out(text, per_mille=200))
    assert out
    assert kept
    assert sorted(out + kept) == sorted(corpus)


def test_held_out_is_the_checksum() -> None:
    texts = [f"Document {number}." for number in range(20_000)]
    assert abs(sum(map(held_out, texts)) - 200) < 4 * 200**0.5
    assert all(held_out(text, per_mille=10) == (zlib.crc32(text.encode()) % 1000 < 10) for text in texts[:500])
    assert not any(held_out(text, per_mille=0) for text in texts)
    assert all(held_out(text, per_mille=1000) for text in [*texts, "", "\ud800"])


def test_wanted_documents_alone_are_used(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    def wanted(text: str) -> bool:
        return "sailor" in text

    stream = StreamedPairs(source(corpus, 1), tokenizer, lanes=LANES, max_length=LENGTH, wanted=wanted)
    alone = StreamedPairs(source(list(filter(wanted, corpus)), 1), tokenizer, lanes=LANES, max_length=LENGTH)
    assert read(stream, 0, 100) == read(alone, 0, 100)
    assert read(stream, 0, 9) != read(
        StreamedPairs(source(corpus, 1), tokenizer, lanes=LANES, max_length=LENGTH), 0, 9
    )


def test_nothing_wanted(build: Any) -> None:
    with pytest.raises(TextSourceError, match="has no document to train on"):
        build(wanted=lambda text: False)[0]


def test_chunks_do_not_end_together(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    stream = StreamedPairs(source(corpus * 20, 1), tokenizer, lanes=16, max_length=LENGTH)
    ends = Counter()
    for step in range(150):
        before = dict(stream._used)
        for lane in range(16):
            stream[step * 16 + lane]
        ends[step] = sum(stream._used[lane] is not place for lane, place in before.items())
    assert max(ends.values()) <= 8


def test_little_is_kept_over_a_long_run() -> None:
    """Document lengths from a Pareto distribution with infinite variance; lanes take equal numbers of characters."""
    rng = random.Random(0)
    texts = ["a" * min(20_000, int(10 * rng.paretovariate(1.2))) for _ in range(3000)]
    dealer = for_all_lanes(Dealer(source(texts, 1), 8))
    taken, backlog, markers = [0] * 8, [], []
    while dealer.epoch < 8:
        lane = taken.index(min(taken))
        chunk = dealer.next_chunk(lane)
        dealer.release(lane, chunk)
        taken[lane] += sum(len(document.text) for document in chunk)
        backlog.append(dealer.backlog)
        markers.append(len(dealer._markers))
    half = len(backlog) // 2
    assert max(backlog) < 3000
    assert max(backlog[half:]) <= 1.5 * max(backlog[:half])
    assert max(markers) <= MOST_MARKERS + 1


def test_nothing_is_kept_for_the_lanes_of_others(build: Any) -> None:
    stream = build()
    read(stream, 0, 60, rank=1, processes=4)
    (dealer,) = stream._dealers.values()
    assert dealer.kept == ({1} if stream.groups == 1 else {1 % (LANES // stream.groups)})
    assert dealer.backlog <= 2 * CHUNK_DOCUMENTS
    assert len(json.dumps(stream.state())) < 2000


def test_long_documents_are_paired_alone(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    book = " ".join(corpus * 4)
    stream = StreamedPairs(source([book * 2, *corpus], 1), tokenizer, lanes=2, max_length=LENGTH, seed=1)
    expected = pair_texts([book * 2], tokenizer, LENGTH, random.Random("1-0-0"))
    got = [stream[2 * number] for number in range(len(expected["input_ids"]))]
    assert sorted(example["input_ids"] for example in got) == sorted(expected["input_ids"])
    assert [example["input_ids"] for example in got] != expected["input_ids"]  # shuffled


@pytest.mark.parametrize("texts", [["One."], ["", " \n"], ["One.", "", "Two"]])
def test_too_short_a_text(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    with pytest.raises(TextSourceError, match=r"too short|no document"):
        StreamedPairs(source(texts, 1), tokenizer, lanes=LANES, max_length=LENGTH)[0]


def test_fewer_documents_than_lanes(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    def new() -> StreamedPairs:
        return StreamedPairs(source([*corpus[:2], " ".join(corpus)], 1), tokenizer, lanes=LANES, max_length=LENGTH)

    whole = read(new(), 0, 300)
    assert {p: e for rank in (0, 1) for p, e in read(new(), 0, 300, rank, 2).items()} == whole


FAIL = [True]


def failing(texts: list[str]) -> Iterator[dict[str, str]]:
    for number, text in enumerate(texts):
        if FAIL[0] and number == 60:
            raise OSError("The line is dead")
        yield {"text": text}


def test_an_error_leaves_the_stream_where_it_was(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    def new() -> StreamedPairs:
        documents = IterableDataset.from_generator(failing, gen_kwargs={"texts": tuple(corpus * 2)})
        return StreamedPairs(documents, tokenizer, lanes=1, max_length=LENGTH)

    FAIL[0] = True
    stream = new()
    before = []
    with pytest.raises(TextSourceError, match=r"cannot be read on.*The line is dead"):
        before.extend(stream[position] for position in range(1000))
    with pytest.raises(TextSourceError, match="The line is dead"):
        stream[len(before)]
    state = json_again(stream.state())
    FAIL[0] = False
    resumed = new()
    resumed.load_state(state)
    whole = new()
    expected = [whole[position] for position in range(400)]
    assert before + [stream[position] for position in range(len(before), 400)] == expected
    assert [resumed[position] for position in range(len(before), 400)] == expected[len(before) :]


def test_other_settings_are_refused(build: Any) -> None:
    state = build().state()
    with pytest.raises(StreamError, match="`seed` 3; this stream has 4"):
        build(seed=4).load_state(state)
    with pytest.raises(StreamError, match="cannot be merged"):
        StreamedPairs.merge([state, build(seed=4).state()])
    with pytest.raises(StreamError, match="cannot be merged"):
        StreamedPairs.merge([])
    with pytest.raises(StreamError, match="`lanes` is 0"):
        build(lanes=0)
    with pytest.raises(StreamError, match="`position` is -1"):
        build()[-1]
    with pytest.raises(TextSourceError, match="`max_length` is 7"):
        build(max_length=7)


def test_markers_are_plain_json() -> None:
    marker = Marker(3, 1, [2, 4], {"epoch": 0})
    assert Marker(**json_again(marker.to_dict())) == marker


def test_half_are_random(build: Any) -> None:
    labels = [example["next_sentence_label"] for example in read(build(), 0, STEPS).values()]
    assert abs(sum(labels) - len(labels) / 2) < 4 * len(labels) ** 0.5 / 2
