"""A stream resumes exactly, at any step, and its processes share every epoch's documents; oracle: uninterrupted."""

import json
import pickle
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from datasets import IterableDataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from schubert_hf.data import streaming
from schubert_hf.data.stream import POSITION, StreamError, pull
from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.data.text import TextSourceError, held_out, not_held_out

LENGTH = 32
EXAMPLES = 800  # the corpus makes about 330: more than two epochs
READ: list[str] = []  # what `rows` has yielded


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


def saved(*streams: StreamedPairs) -> list[dict[str, Any]]:
    """The states of all processes, as a checkpoint holds them."""
    return json.loads(json.dumps([stream.state() for stream in streams]))


def read(stream: StreamedPairs, number: int, first: int = 0) -> list[dict[str, Any]]:
    return [stream[position] for position in range(first, first + number)]


def texts_of(new: Callable[..., StreamedPairs], epochs: int) -> list[list[str]]:
    """The documents of a stream by epoch; `new` builds it, with what makes its examples."""
    seen: list[list[str]] = [[] for _ in range(epochs + 1)]

    def record(texts: list[str], *_: Any) -> dict[str, list[Any]]:
        seen[stream.state()["epoch"]] += texts
        return {"input_ids": [[0]]}

    stream = new(make=record)
    while stream.state()["epoch"] < epochs:
        stream[0]
    return seen[:epochs]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK_DOCUMENTS", 12)


@pytest.fixture(params=[1, 2, 8], ids=lambda shards: f"{shards} shards")
def build(request: pytest.FixtureRequest, corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> Any:
    """New streams over the corpus in so many shards, all alike."""

    def new(rank: int = 0, processes: int = 1, **options: Any) -> StreamedPairs:
        chosen = {"max_length": LENGTH, "seed": 3, **options}
        return StreamedPairs(source(corpus, request.param), tokenizer, **chosen).for_process(rank, processes)

    return new


def test_an_example_is_a_pair_and_its_position(build: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    for position, example in enumerate(read(build(), 40)):
        assert set(example) == {"input_ids", "token_type_ids", "next_sentence_label", POSITION}
        assert example[POSITION] == position
        assert len(example["input_ids"]) == len(example["token_type_ids"]) <= LENGTH
        assert example["input_ids"][0] == tokenizer.cls_token_id


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 77, 165, 400])
def test_resumed_is_uninterrupted(build: Any, step: int, processes: int) -> None:
    streams = [build(rank, processes) for rank in range(processes)]
    before = [read(stream, step) for stream in streams]
    states = saved(*streams)
    for rank, stream in enumerate(streams):
        resumed = build(rank, processes)
        resumed.load_state(states)
        rest = read(resumed, EXAMPLES // processes, step)
        assert rest == read(stream, EXAMPLES // processes, step)
        assert before[rank] + rest == read(build(rank, processes), step + EXAMPLES // processes)


def test_resumed_at_every_example(build: Any) -> None:
    """Lives of one to a few examples, over the ends of chunks and epochs."""
    whole = read(build(), 500)
    states, position = saved(build()), 0
    while position < 490:
        stream = build()
        stream.load_state(states)
        assert saved(stream) == states
        number = 1 + position % 10
        assert read(stream, number, position) == whole[position : position + number]
        states, position = saved(stream), position + number


@pytest.mark.parametrize(("shards", "processes"), [(1, 1), (1, 2), (8, 1), (8, 2), (8, 4), (3, 2), (2, 5)])
def test_processes_share_every_epoch(
    corpus: list[str], tokenizer: PreTrainedTokenizerBase, shards: int, processes: int
) -> None:
    new = partial(StreamedPairs, source(corpus, shards), tokenizer)
    shares = [
        texts_of(lambda make, rank=rank: new(make=make).for_process(rank, processes), 3) for rank in range(processes)
    ]
    for epoch in range(3):
        assert sorted(text for share in shares for text in share[epoch]) == sorted(corpus)


def test_epochs_and_seeds_differ(build: Any) -> None:
    def ids(examples: list[dict[str, Any]]) -> list[list[int]]:
        return [example["input_ids"] for example in examples]

    stream, first = build(), []
    while stream.state()["epoch"] == 0:
        first += read(stream, 1)
    assert ids(first[:-1]) != ids(read(stream, len(first) - 1))
    assert ids(read(build(seed=4), 40)) != ids(first[:40])
    assert ids(read(build(), 40)) == ids(first[:40])


def test_random_seconds_are_from_other_documents(build: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    labels = [example["next_sentence_label"] for example in read(build(), 600)]
    assert abs(sum(labels) - len(labels) / 2) < 4 * len(labels) ** 0.5 / 2
    names = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2)[:12]
    known = {*tokenizer.convert_tokens_to_ids(names)}
    apart = [" ".join(f"{name} {name} {name}." for _ in range(9)) for name in names]
    for example in read(StreamedPairs(source(apart, 1), tokenizer, max_length=24), 200):
        ids, second = example["input_ids"], example["token_type_ids"].index(1)
        first, other = ({*ids[begin:end]} & known for begin, end in ((0, second), (second, None)))
        assert (first == other) == (example["next_sentence_label"] == 0)


def test_pickled_midway(build: Any) -> None:
    stream = build()
    read(stream, 30)
    copied = pickle.loads(pickle.dumps(stream))
    assert read(copied, 60, 30) == read(stream, 60, 30)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_reads_what_the_process_reads(build: Any, workers: int) -> None:
    """Forked after some examples; the state that comes with each batch resumes after it."""
    whole = [build(rank, 2) for rank in (0, 1)]
    expected = [read(stream, 400) for stream in whole]
    stream = build(1, 2)
    read(stream, 10)
    loader = DataLoader(
        stream,
        batch_sampler=[list(range(begin, begin + 5)) for begin in range(10, 390, 5)],
        collate_fn=partial(pull, stream, list),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    for number, batch in enumerate(loader):
        begin = 10 + 5 * number
        assert batch.tensors == expected[1][begin : begin + 5]
        if number % 13 == 0:
            resumed = build(1, 2)
            resumed.load_state([{}, json.loads(json.dumps(batch.state))])
            assert read(resumed, 9, begin + 5) == expected[1][begin + 5 : begin + 14]


def test_resuming_reads_no_earlier_files(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    stream = StreamedPairs(source(corpus, 8), tokenizer, max_length=LENGTH)
    read(stream, 200)
    states = saved(stream)
    resumed = StreamedPairs(source(corpus, 8), tokenizer, max_length=LENGTH)
    resumed.load_state(states)
    READ.clear()
    read(resumed, 1, 200)
    assert len(READ) <= 12 + 10  # a chunk, and what comes before it in its file
    assert len(json.dumps(states)) < 500


def test_a_process_opens_its_own_files(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    stream = StreamedPairs(source(corpus, 4), tokenizer, max_length=LENGTH).for_process(1, 4)
    READ.clear()
    read(stream, 20)
    assert set(READ) <= set(corpus[20:40])


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase) -> None:
    """By documents and by characters: memory does not depend on how long documents are, nor on how many."""
    monkeypatch.setattr(streaming, "CHUNK_CHARACTERS", 1000)
    sizes: list[list[int]] = []

    def record(texts: list[str], *_: Any) -> dict[str, list[Any]]:
        sizes.append([*map(len, texts)])
        return {"input_ids": [[0]]}

    read(StreamedPairs(source(["a" * 700] * 4 + ["b"] * 30, 1), tokenizer, make=record), 5)
    assert sizes[:2] == [[700, 700], [700, 700]]
    assert sizes[2:5] == [[1] * 12, [1] * 12, [1] * 6]


def test_held_out_is_the_checksum() -> None:
    texts = [f"Document {number}." for number in range(20_000)]
    assert abs(sum(map(held_out, texts)) - 200) < 4 * 200**0.5
    assert all(held_out(text, per_mille=10) == (zlib.crc32(text.encode()) % 1000 < 10) for text in texts[:500])
    assert not any(held_out(text, per_mille=0) for text in texts)
    assert all(held_out(text, per_mille=1000) for text in [*texts, "", "\ud800"])


def test_held_out_and_training_are_apart_and_complete(corpus: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    def texts(wanted: Any) -> Counter[str]:
        new = partial(StreamedPairs, source([*corpus, "", " \n"], 2), tokenizer, wanted=wanted)
        return Counter(texts_of(new, 1)[0])

    out = texts(lambda text: held_out(text, per_mille=200))
    kept = texts(lambda text: not_held_out(text, per_mille=200))
    assert out
    assert kept
    assert out + kept == Counter(corpus)


@pytest.mark.parametrize("texts", [["One."], ["", " \n"]])
def test_too_short_a_text(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    with pytest.raises(TextSourceError, match="makes no example for process 1 of 1"):
        StreamedPairs(source(texts, 1), tokenizer, max_length=LENGTH)[0]


def test_nothing_for_a_process(build: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TextSourceError, match="makes no example"):
        build(wanted=lambda text: False)[0]
    few = StreamedPairs(source(["One. Two. Three. Four."], 1), tokenizer, max_length=LENGTH)
    assert read(few.for_process(0, 2), 20)
    with pytest.raises(TextSourceError, match=r"process 2 of 2.* fewer processes"):
        few.for_process(1, 2)[0]


FAIL = [True]


def failing(texts: list[str]) -> Iterator[dict[str, str]]:
    for number, text in enumerate(texts):
        if FAIL[0] and number == 60:
            raise OSError("The line is dead")
        yield {"text": text}


def test_an_error_leaves_the_stream_where_it_was(tokenizer: PreTrainedTokenizerBase, corpus: list[str]) -> None:
    def new() -> StreamedPairs:
        documents = IterableDataset.from_generator(failing, gen_kwargs={"texts": tuple(corpus * 2)})
        return StreamedPairs(documents, tokenizer, max_length=LENGTH)

    FAIL[0] = True
    stream, before = new(), []
    with pytest.raises(TextSourceError, match=r"cannot be read to its end.*The line is dead"):
        before.extend(stream[position] for position in range(1000))
    with pytest.raises(TextSourceError, match="The line is dead"):
        stream[len(before)]
    assert before
    states = saved(stream)
    FAIL[0] = False
    resumed, expected = new(), read(new(), 400)
    resumed.load_state(states)
    assert before + read(stream, 400 - len(before), len(before)) == expected
    assert read(resumed, 400 - len(before), len(before)) == expected[len(before) :]


def test_other_settings_are_refused(build: Any) -> None:
    states = saved(build(0, 2), build(1, 2))
    with pytest.raises(StreamError, match=r"`processes` 2, this one has 1\. Resume with as many processes"):
        build().load_state(states)
    with pytest.raises(StreamError, match="`seed` 3, this one has 4"):
        build(0, 2, seed=4).load_state(states)
    with pytest.raises(TextSourceError, match="`max_length` is 7"):
        build(max_length=7)
