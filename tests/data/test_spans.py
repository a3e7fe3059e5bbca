"""Unlabelled examples: whole sentences of every length, pairs from columns or made of passages, nothing masked."""

import random

import pytest
import torch
from datasets import Dataset

from schubert_hf.data.columns import load_pairs, split_rows, tokenize_pairs
from schubert_hf.data.padding import PaddingCollator
from schubert_hf.data.pairs import split_sentences
from schubert_hf.data.sources import TextSourceError
from schubert_hf.data.spans import choice_texts, make_spans, make_text_pairs, span_texts
from schubert_hf.data.stream import ExampleStream, TokenizerError, for_stream
from schubert_hf.data.streaming import StreamedPairs

LENGTH = 32


def test_spans_are_the_text_in_order(tokenizer, documents):
    texts = documents["text"][:3]
    columns = span_texts(texts, tokenizer, 200, random.Random(0))
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert all(row[0] == start and row[-1] == end and len(row) <= 200 for row in columns["input_ids"])
    assert columns["token_type_ids"] == [[0] * len(row) for row in columns["input_ids"]]
    inside = [piece for row in columns["input_ids"] for piece in row[1:-1]]
    assert inside == tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]


def test_spans_are_of_every_length_and_the_same_each_time(tokenizer, documents):
    spans = make_spans(documents, tokenizer, max_length=LENGTH, seed=3)
    lengths = {len(row) for row in spans["input_ids"]}
    assert max(lengths) <= LENGTH
    assert len(lengths) > 5
    assert spans["input_ids"][:] == make_spans(documents, tokenizer, max_length=LENGTH, seed=3)["input_ids"][:]
    assert spans["input_ids"][:] != make_spans(documents, tokenizer, max_length=LENGTH, seed=4)["input_ids"][:]


def test_a_document_of_one_sentence_is_an_example_of_its_own(tokenizer):
    texts = ["the cat sees a dog", "a house", "", "the dog"]
    columns = span_texts(texts, tokenizer, LENGTH, random.Random(0))
    assert [tokenizer.decode(row[1:-1]) for row in columns["input_ids"]] == [text for text in texts if text]


def test_full_spans_hold_as_many_whole_sentences_as_fit(tokenizer, documents):
    text = " ".join(documents["text"][:5])
    sentences = [tokenizer(one, add_special_tokens=False)["input_ids"] for one in split_sentences(text)]
    for row in span_texts([text], tokenizer, LENGTH, random.Random(0), full=True)["input_ids"]:
        inside: list[int] = []
        while inside != row[1:-1]:
            inside += sentences.pop(0)
        assert len(row) <= LENGTH
        assert not sentences or len(row) + len(sentences[0]) > LENGTH
    assert not sentences


def test_prompts_stand_before_the_text(tokenizer, documents):
    spans = make_spans(documents, tokenizer, max_length=LENGTH, prompts=["the cat ", "dog "])
    starts = {tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in ("the cat ", "dog ")}
    begun = [start for row in spans["input_ids"] for start in starts if tuple(row[1 : 1 + len(start)]) == start]
    assert len(begun) >= len(spans)
    assert set(begun) == starts
    with pytest.raises(TextSourceError, match="`max_length` is 8, which the longest prompt fills"):
        make_spans(documents, tokenizer, max_length=8, prompts=["the cat sees a dog in the house"])


def test_a_text_of_nothing_makes_no_span(tokenizer):
    with pytest.raises(TextSourceError, match="too short to make one example"):
        make_spans(Dataset.from_dict({"text": [" ", ""]}), tokenizer, max_length=LENGTH)


def test_passages_are_paired_and_choices_share_the_first(tokenizer, documents):
    pairs = make_text_pairs(documents, tokenizer, max_length=LENGTH)
    assert pairs.column_names == ["input_ids", "token_type_ids"]
    assert all(row.count(tokenizer.sep_token_id) == 2 for row in pairs["input_ids"])
    columns = choice_texts(documents["text"][:9], tokenizer, LENGTH, random.Random(0))
    for ids, segments in zip(columns["input_ids"], columns["token_type_ids"], strict=True):
        assert len(ids) == len(segments) == 4
        both = zip(ids, segments, strict=True)
        firsts = {tuple(piece for piece, one in zip(*row, strict=True) if not one) for row in both}
        assert len(firsts) == 1
        assert all(len(row) <= LENGTH and row[-1] == tokenizer.sep_token_id for row in ids)
    batch = PaddingCollator(tokenizer)(
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)][:3]
    )
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 4, batch["input_ids"].shape[-1])
    made = make_text_pairs(documents, tokenizer, max_length=LENGTH, choices=True)
    assert len(made[0]["input_ids"]) == 4


def test_batches_are_padded_and_nothing_is_masked(tokenizer, documents):
    spans = make_spans(documents, tokenizer, max_length=LENGTH)
    rows = [{**spans[n], "label": 3} for n in range(5)]
    batch = PaddingCollator(tokenizer)(rows)
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == row["input_ids"]
        assert (ids[~mask.bool()] == tokenizer.pad_token_id).all()
    streamed = for_stream(PaddingCollator(tokenizer))([ExampleStream(rows, shuffle=False)[n] for n in range(5)])
    assert all(torch.equal(streamed[name], batch[name]) for name in batch)


def test_a_tokenizer_without_padding_is_refused(tokenizer):
    class Bare:
        pad_token_id, name_or_path = None, "bare"

    with pytest.raises(TokenizerError, match="`bare` has no padding token"):
        PaddingCollator(Bare())


def test_spans_are_streamed(tokenizer, documents):
    stream = StreamedPairs(documents.to_iterable_dataset(), tokenizer, max_length=LENGTH, make=span_texts)
    rows = [stream[n] for n in range(6)]
    assert {"input_ids", "token_type_ids", "stream_position"} == set(rows[0])
    assert all(len(row["input_ids"]) <= LENGTH for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "memory", "folder"])
def test_pairs_are_read_from_columns(kind, tokenizer, tmp_path):
    rows = Dataset.from_dict({"n": [1, 2, 3], "query": ["a cat", "", "two"], "passage": ["the dog sees", "b", "c"]})
    source, path = rows, tmp_path / f"pairs.{kind}"
    if kind in ("jsonl", "folder"):
        rows.to_json(tmp_path / "pairs.jsonl")
    elif kind != "memory":
        getattr(rows, f"to_{kind}")(path)
    if kind != "memory":
        source = tmp_path if kind == "folder" else path
    pairs = load_pairs(source, ("query", "passage"))
    assert pairs.to_dict() == {"query": ["a cat", "two"], "passage": ["the dog sees", "c"]}
    examples = tokenize_pairs(pairs, tokenizer, max_length=LENGTH)
    wanted = tokenizer("a cat", "the dog sees")
    assert examples[0] == {name: wanted[name] for name in ("input_ids", "token_type_ids")}
    train, held_out = split_rows(pairs, held_out=8, seed=0)
    assert (len(train), len(held_out)) == (1, 1)


@pytest.mark.parametrize("name", ["pairs[1].jsonl", "[pairs].csv", "p*.parquet"])
def test_a_name_of_pairs_is_no_pattern(name, tmp_path):
    for file, words in ((name, "wanted"), ("pairs1.jsonl", "other"), ("p.csv", "other"), ("p2.parquet", "other")):
        rows = Dataset.from_dict({"a": [words], "b": [words]})
        getattr(rows, f"to_{file.rpartition('.')[2].replace('jsonl', 'json')}")(tmp_path / file)
    assert load_pairs(tmp_path / name, ("a", "b")).to_dict() == {"a": ["wanted"], "b": ["wanted"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": "x", "c": "y"}', r"has the columns a, c; `pair_columns` names b\. Name two that it has"),
        ('{"a": "x", "b": 3}', "holds .*int64.*; allowed are strings"),
        ('{"a": "x", "b": " "}', "has no row with text in both a and b"),
        ('{"a": ', "cannot be read as pairs of texts"),
    ],
)
def test_columns_that_hold_no_pairs_are_one_error(content, words, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(content + "\n")
    with pytest.raises(TextSourceError, match=words):
        load_pairs(path, ("a", "b"))
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(TextSourceError, match=r"text\.txt` has no columns"):
        load_pairs(tmp_path / "text.txt", ("a", "b"))
    with pytest.raises(TextSourceError, match="one pair only"):
        split_rows(Dataset.from_dict({"a": ["x"], "b": ["y"]}), held_out=1, seed=0)
