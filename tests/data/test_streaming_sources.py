"""Streamed sources give the documents of loaded ones, and the same clear errors."""

import gc
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from test_text import BAD, GOOD, TEXT, WANTED
from transformers import PreTrainedTokenizerBase

from schubert_hf.data import sources, streaming
from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.data.text import FIRST, TextSourceError, load_documents, stream_documents


def texts(documents: Any) -> list[str]:
    return [row["text"] for row in documents]


@pytest.mark.parametrize("name", GOOD)
def test_streamed_are_loaded_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD[name])
    streamed = texts(stream_documents(str(tmp_path / name)))
    assert streamed == texts(load_documents(tmp_path / name))
    assert [text.strip() for text in streamed if text.strip()] == WANTED


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_documents_across_the_blocks_that_are_read(tmp_path: Path, suffix: str) -> None:
    """One document is longer than several blocks, and others lie across the ends of blocks."""
    wanted = [f"Document {number}. " + "A sentence of it. " * size for number, size in enumerate((200_000, 50_000, 9))]
    wanted = [text.strip() for text in wanted * 3]
    path = tmp_path / f"long.{suffix}"
    path.write_text(
        "\n\n".join(wanted) if suffix == "txt" else "\n".join(json.dumps({"text": text}) for text in wanted)
    )
    assert texts(stream_documents(path)) == wanted


def test_parquet(tmp_path: Path, corpus: list[str]) -> None:
    Dataset.from_dict({"text": corpus, "id": range(len(corpus))}).to_parquet(tmp_path / "rows.parquet")
    documents = stream_documents(tmp_path / "rows.parquet")
    assert texts(documents) == corpus
    assert documents.column_names == ["text"]


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_the_same_errors(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextSourceError, match=message) as caught:
        stream_documents(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["nowhere.txt", "./nowhere", Path("nowhere")])
def test_nothing_there(source: str | Path) -> None:
    with pytest.raises(TextSourceError, match="does not exist"):
        stream_documents(source)


def test_a_folder_is_a_shard_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": WANTED[0], "id": 7}) + "\n")
    (tmp_path / "deep" / "b.jsonl.xz").write_bytes(lzma.compress(json.dumps({"text": WANTED[1], "id": 8}).encode()))
    (tmp_path / ".hidden.txt").write_text("Hidden. Not read.\n")
    (tmp_path / "empty.txt").write_text("")
    documents = stream_documents(tmp_path)
    assert texts(documents) == WANTED
    assert documents.num_shards == 2


def test_parquet_files_with_other_columns(tmp_path: Path) -> None:
    Dataset.from_dict({"text": WANTED[:1], "id": [1]}).to_parquet(tmp_path / "a.parquet")
    Dataset.from_dict({"title": ["b"], "text": WANTED[1:]}).to_parquet(tmp_path / "b.parquet")
    assert texts(stream_documents(tmp_path)) == WANTED
    Dataset.from_dict({"body": ["b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TextSourceError, match=r"a\.parquet` has the columns \['body'\]"):
        stream_documents(tmp_path / "a.parquet")


def test_jsonl_files_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": WANTED[0], "id": 7}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": WANTED[1], "title": "b"}) + "\n")
    with pytest.raises(TextSourceError, match=r"a\.jsonl` and the 1 files after it .* Keep the column `text` alone"):
        stream_documents(tmp_path)


def test_a_folder_of_several_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.jsonl").write_text('{"text": "One. Two."}\n')
    with pytest.raises(TextSourceError, match=r"several kinds \(1 of text, 1 of json\)"):
        stream_documents(tmp_path)


def test_a_folder_names_the_file_at_fault(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes(b"caf\xe9. Bon.\n")
    with pytest.raises(TextSourceError, match=r"b\.txt` is not UTF-8"):
        stream_documents(tmp_path)


def test_a_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(TextSourceError, match="holds no file that can be read"):
        stream_documents(tmp_path)


def test_an_error_further_on_comes_when_it_is_reached(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "a.txt").write_text(TEXT * (FIRST + 1))
    (tmp_path / "b.txt").write_bytes(b"Some text.\0\0\0 More of it.\n")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9. Bon.\n")
    documents = stream_documents(tmp_path)
    for rank, message in ((1, "not text: it holds null bytes"), (2, "cannot be read to its end")):
        with pytest.raises(TextSourceError, match=message):
            StreamedPairs(documents, tokenizer).for_process(rank, 3)[0]
    assert StreamedPairs(documents, tokenizer).for_process(0, 3)[0]


def test_only_the_first_documents_are_checked(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in [""] * FIRST + WANTED]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(TextSourceError, match=f"no text in its first {FIRST} documents"):
        stream_documents(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:]))
    assert texts(stream_documents(tmp_path))[-2:] == WANTED


def test_wikitext_is_not_streamed(tmp_path: Path) -> None:
    folder = tmp_path / "wikitext"
    folder.mkdir()
    Dataset.from_dict({"text": ["", " = First = \n", " One line . \n"]}).to_parquet(folder / "train.parquet")
    with pytest.raises(TextSourceError, match="without streaming"):
        stream_documents(folder)


@pytest.mark.parametrize("name", ["no-such-dataset", "nobody/no-such-dataset", "a/b/c", "two words"])
def test_unknown_dataset(name: str) -> None:
    with pytest.raises(TextSourceError, match=r"[Gg]ive") as caught:
        stream_documents(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dataset_on_the_hub(monkeypatch: pytest.MonkeyPatch, corpus: list[str]) -> None:
    """In the Hub's place: what `load_dataset` would give for a streamed one."""
    asked = {}

    def load(name: str, config: str | None, **options: Any) -> datasets.IterableDataset:
        asked.update(options, name=name, config=config)
        return Dataset.from_dict({"id": range(80), "text": corpus}).to_iterable_dataset(num_shards=4)

    monkeypatch.setattr(HfApi, "dataset_info", lambda self, name, timeout: None)
    monkeypatch.setattr(sources, "load_dataset", load)
    documents = stream_documents("some/corpus", config="en", split="validation")
    assert asked == {"name": "some/corpus", "config": "en", "split": "validation", "streaming": True}
    assert documents.num_shards == 4
    assert texts(documents) == corpus
    assert documents.column_names == ["text"]


@pytest.fixture
def _open_files() -> Iterator[None]:
    """`datasets` leaves a CSV file open that is not read to its end."""
    yield
    gc.collect()


@pytest.mark.usefixtures("_open_files")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "jsonl.xz", "parquet", "csv"])
@pytest.mark.parametrize("files", [1, 4])
def test_resuming_in_files(
    tmp_path: Path,
    corpus: list[str],
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    files: int,
) -> None:
    """`datasets` has a way of its own to keep its place for each kind of file."""
    for number in range(files):
        part, path = Dataset.from_dict({"text": corpus[number::files]}), tmp_path / f"{number}.{suffix}"
        if suffix == "txt":
            path.write_text("\n \n".join(part["text"]))  # one row for `datasets`, many documents
        elif suffix == "parquet":
            part.to_parquet(path, batch_size=5)
        elif suffix == "csv":
            part.to_csv(path)
        else:
            part.to_json(path, compression="xz" if path.suffix == ".xz" else None)

    def new() -> StreamedPairs:
        return StreamedPairs(stream_documents(tmp_path), tokenizer, max_length=32).for_process(1, 2)

    monkeypatch.setattr(streaming, "CHUNK_DOCUMENTS", 7)
    whole = new()
    expected = [whole[position] for position in range(400)]
    for stop in (100, 331):
        stream, resumed = new(), new()
        assert [stream[position] for position in range(stop)] == expected[:stop]
        resumed.load_state([{}, json.loads(json.dumps(stream.state()))])
        assert [resumed[position] for position in range(stop, 400)] == expected[stop:]
