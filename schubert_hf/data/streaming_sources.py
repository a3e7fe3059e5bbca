"""Opens text as a `datasets.IterableDataset` of documents, and decides which of them are held out from training."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset

from ..run.progress import quiet
from .sources import (
    EMPTY,
    READ_ERRORS,
    WITH_SENTENCES,
    TextSourceError,
    complaint,
    files_by_reader,
    first_line,
    load_hub,
    local_path,
    reader_options,
    text_column,
    tidy,
)
from .text import WIKITEXT_TITLE

FIRST = 100  # documents that are checked before any training
SEARCHED = 200_000  # documents that are searched for held-out ones, a hundredth of all
# Bytes read at a time from an open file; by default `datasets` reads ten times as much.
BLOCK = {reader: {"chunksize": 1 << 20} for reader in ("text", "json")}


def held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a document is held out from training. Its CRC-32 decides, so its place in the corpus does not matter.

    Args:
        text: the document.
        per_mille: how many of 1000 documents are held out.
    """
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 1000 < per_mille


def not_held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a document is trained on; a named function, because DataLoader workers have to pickle it."""
    return not held_out(text, per_mille=per_mille)


def stream_documents(source: str | Path, *, config: str | None = None, split: str = "train") -> IterableDataset:
    """Opens local files or a dataset on the Hub to read documents one by one, without storing them.

    The documents are those of `load_documents`, in the same order. Only the first few are checked here; an error
    further on is raised when it is reached.

    Args:
        source: a path (`.txt`, `.jsonl`, `.parquet`, `.csv`, each also compressed with gz, xz, bz2 or zst; or a
            folder of such files, all of one kind) or the name of a dataset with a column `text`.
        config: the dataset's configuration; only for datasets on the Hub.
        split: the dataset's split; only for datasets on the Hub.

    Returns:
        A dataset with the single column `text`, one document per row. Every file is a shard.

    Raises:
        TextSourceError: the source does not exist, is not text, or its first documents are empty; or it cannot be
            streamed: files of several kinds, or WikiText, whose articles are cut into lines.
    """
    path = local_path(source)
    documents = _stream_files(path) if path is not None else _stream_hub(str(source), config, split)
    head = [row["text"] or "" for row in itertools.islice(documents, FIRST)]
    if not any(text.strip() for text in head):
        where = f" in its first {FIRST} documents" if len(head) == FIRST else ""
        raise TextSourceError(f"`{source}` holds no text{where}. {WITH_SENTENCES}")
    if "wikitext" in str(source) and any(WIKITEXT_TITLE.match(text) for text in head):
        raise TextSourceError(
            f"`{source}` has one line per row, and a stream cannot join lines to articles. It is small: load it "
            "without streaming, or give files with one article per document."
        )
    return documents


def held_out_documents(documents: IterableDataset, number: int) -> Dataset:
    """The first `number` documents that `held_out` keeps from training; fewer where `SEARCHED` documents hold fewer.

    Raises:
        TextSourceError: they hold none.
    """
    texts = (row["text"] for row in itertools.islice(documents, SEARCHED))
    selected = list(itertools.islice((text for text in texts if text and held_out(text)), number))
    if not selected:
        raise TextSourceError(
            f"None of the first {SEARCHED} documents is held out: there are too few. Give separate held-out text "
            "(`--eval-text`), or load the text without streaming."
        )
    return Dataset.from_dict({"text": selected})


def _stream_files(path: Path) -> IterableDataset:
    by_reader = files_by_reader(path)
    if len(by_reader) > 1:
        kinds = ", ".join(f"{len(files)} of {reader}" for reader, files in by_reader.items())
        raise TextSourceError(
            f"`{path}` holds files of several kinds ({kinds}); only one kind can be streamed. Give a folder of one."
        )
    return _stream_kind(*next(iter(by_reader.items())))


def _stream_kind(reader: str, files: list[str]) -> IterableDataset:
    options = {"data_files": files, "split": "train", "streaming": True}
    options |= {**reader_options(reader), **BLOCK.get(reader, {})}
    try:
        with quiet():
            documents = load_dataset(reader, **options)
            if reader == "parquet" and "text" in documents.column_names:  # reads no other column then
                documents = load_dataset(reader, columns=["text"], **options)
            documents = _select_text(documents, f"`{files[0]}`")
    except TextSourceError:
        raise
    except READ_ERRORS as error:
        for file in files if len(files) > 1 else []:  # the one at fault raises when it is read alone
            _stream_kind(reader, [file])
        others = f" and the {len(files) - 1} files after it" if len(files) > 1 else ""
        raise TextSourceError(f"`{files[0]}`{others} {complaint(reader, error)}") from error
    if reader != "text":
        return documents
    return documents.map(tidy, batched=True, batch_size=1, features=documents.features, fn_kwargs={"file": files[0]})


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
            "Check the connection, or load it without streaming."
        ) from error


def _select_text(dataset: IterableDataset, source: str) -> IterableDataset:
    """The column `text` alone, once the first rows have shown that it exists and holds strings."""
    if "text" in (dataset.column_names or []):
        dataset = dataset.select_columns(["text"])  # before anything is read: the other columns may be large
    rows = list(itertools.islice(dataset, FIRST))
    if not rows:
        raise TextSourceError(f"{source} {EMPTY}")
    text_column(Dataset.from_list(rows, features=dataset.features), source)
    return dataset.select_columns(["text"])
