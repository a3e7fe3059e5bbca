"""Documents from where `load_documents` takes them, read on the fly: for corpora too large to be prepared first."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset

from ..run.progress import quiet
from .sources import (
    EMPTY,
    READ_ERRORS,
    TextSourceError,
    complaint,
    files_by_reader,
    first_line,
    load_hub,
    looks_local,
    reader_options,
    refuse_null_bytes,
    split_blocks,
    text_column,
)
from .streaming import held_out
from .text import WIKITEXT_TITLE

FIRST = 100  # documents that are looked at before anything is trained on them
LOOKED_AT = 200_000  # documents, a hundredth of which is held out
# Bytes that are read at a time from each open file; a batch may have as many open as it has examples, and what
# `datasets` reads by default, ten times as much, then adds up to gigabytes.
BLOCK = {reader: {"chunksize": 1 << 20} for reader in ("text", "json")}


def stream_documents(source: str | Path, *, config: str | None = None, split: str = "train") -> IterableDataset:
    """Reads documents from local files or from a dataset on the Hub, without keeping them.

    The documents are those of `load_documents`, in its order; only the first few are looked at here, so an error
    further on is raised when it is reached.

    Args:
        source: a path (`.txt`, `.jsonl`, `.parquet`, `.csv`, any of them compressed with gz, xz, bz2 or zst; or a
            folder of such files, all of one kind) or the name of a dataset with a column `text`.
        config: the dataset's configuration; only for datasets on the Hub.
        split: the dataset's split; only for datasets on the Hub.

    Returns:
        A dataset with the single column `text`, one document a row. Every file is a shard of it.

    Raises:
        TextSourceError: nothing is there, it is not text, or the first documents are empty; or it is what cannot be
            read on the fly: files of several kinds, or WikiText, whose articles are cut into lines.
    """
    path = Path(source).expanduser()
    if path.exists():
        documents = _stream_files(path)
    elif looks_local(source):
        raise TextSourceError(f"`{source}` does not exist. Give an existing text file or folder, or a dataset's name.")
    else:
        documents = _stream_hub(str(source), config, split)
    head = [row["text"] or "" for row in itertools.islice(documents, FIRST)]
    if not any(text.strip() for text in head):
        raise TextSourceError(
            f"`{source}` holds no text{f' in its first {FIRST} documents' if len(head) == FIRST else ''}. "
            "Give one with sentences in it, documents apart by blank lines."
        )
    if "wikitext" in str(source) and any(WIKITEXT_TITLE.match(text) for text in head):
        raise TextSourceError(
            f"`{source}` has one line a row; lines cannot be joined to articles on the fly. It is small: load it as a "
            "whole, without streaming, or give files with one article a document."
        )
    return documents


def _stream_files(path: Path) -> IterableDataset:
    by_reader = files_by_reader(path)
    if len(by_reader) > 1:
        kinds = ", ".join(f"{len(files)} of {reader}" for reader, files in by_reader.items())
        raise TextSourceError(
            f"`{path}` holds files of several kinds ({kinds}); one kind can be streamed. Give a folder of one kind."
        )
    ((reader, files),) = by_reader.items()
    return _stream_kind(reader, files)


def _stream_kind(reader: str, files: list[str]) -> IterableDataset:
    options = {
        "data_files": files,
        "split": "train",
        "streaming": True,
        **reader_options(reader),
        **BLOCK.get(reader, {}),
    }
    try:
        with quiet():
            documents = load_dataset(reader, **options)
            if reader == "parquet" and "text" in documents.column_names:  # reads no other column then
                documents = load_dataset(reader, columns=["text"], **options)
            documents = _select_text(documents, f"`{files[0]}`")
    except TextSourceError:
        raise
    except READ_ERRORS as error:
        for file in files if len(files) > 1 else []:  # the one at fault says so when it is read alone
            _stream_kind(reader, [file])
        others = f" and the {len(files) - 1} files after it" if len(files) > 1 else ""
        raise TextSourceError(f"`{files[0]}`{others} {complaint(reader, error)}") from error
    if reader != "text":
        return documents
    return documents.map(_tidy, batched=True, batch_size=1, features=documents.features, fn_kwargs={"file": files[0]})


def _stream_hub(name: str, config: str | None, split: str) -> IterableDataset:
    dataset = load_hub(name, config, split, streaming=True)
    try:
        with quiet():
            return _select_text(dataset, f"The dataset `{name}`")
    except TextSourceError:
        raise
    except (*READ_ERRORS, RuntimeError) as error:
        raise TextSourceError(
            f"The dataset `{name}` cannot be streamed: {first_line(error)} "
            "Check the connection, or load it as a whole, without streaming."
        ) from error


def _select_text(dataset: IterableDataset, source: str) -> IterableDataset:
    """The column `text` alone, after the first rows have shown that it is there and what it holds."""
    if "text" in (dataset.column_names or []):
        dataset = dataset.select_columns(["text"])  # before anything is read: the other columns may be large
    rows = list(itertools.islice(dataset, FIRST))
    if not rows:
        raise TextSourceError(f"{source} {EMPTY}")
    text_column(Dataset.from_list(rows, features=dataset.features), source)
    return dataset.select_columns(["text"])


def _tidy(batch: dict[str, list[Any]], file: str) -> dict[str, list[Any]]:
    refuse_null_bytes(batch["text"], file)
    return split_blocks(batch)


def held_out_documents(documents: IterableDataset, number: int) -> Dataset:
    """The first documents of a stream that `streaming.held_out` keeps from training.

    Args:
        documents: of `stream_documents`.
        number: how many; fewer where the first `LOOKED_AT` documents hold no more.

    Raises:
        TextSourceError: they hold none.
    """
    first = (row["text"] for row in itertools.islice(documents, LOOKED_AT))
    found = list(itertools.islice((text for text in first if text and held_out(text)), number))
    if not found:
        raise TextSourceError(
            f"None of the first {LOOKED_AT} documents is held out: there are too few. Give held-out text of its own "
            "(`--eval-text`), or load the text as a whole, without streaming."
        )
    return Dataset.from_dict({"text": found})
