"""Raw text to documents.

A document is what the next-sentence task draws consecutive sentences from: one block of a text file (blank lines stand
between blocks), or one row of a dataset. Everything is read by `datasets`, which memory-maps what it has read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetGenerationError

# What `datasets` calls the reader of each kind of file.
READERS = {".txt": "text", ".text": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
# Datasets that need a configuration, and the one that people mean when they name none.
DEFAULT_CONFIGS = {"wikitext": "wikitext-103-raw-v1", "Salesforce/wikitext": "wikitext-103-raw-v1"}
WIKITEXT_TITLE = re.compile(r"^ = [^=].* = ?$")


class TextSourceError(ValueError):
    """The text to train on cannot be found, cannot be read, or holds no documents."""


def load_documents(source: str | Path, *, config: str | None = None, split: str = "train", cache: bool = True) -> Dataset:
    """Reads documents from a local file, a folder of files, or a dataset on the Hub.

    Args:
        source: a path (`.txt`, `.jsonl`, `.parquet`, `.csv`, any of them compressed with gz, xz, bz2 or zst; or a folder
            of such files) or the name of a dataset with a column `text`.
        config: the dataset's configuration; only for datasets on the Hub.
        split: the dataset's split; only for datasets on the Hub.
        cache: keep what was read in `datasets`' cache between runs.

    Returns:
        A dataset with the single column `text`, one document a row.

    Raises:
        TextSourceError: nothing is there, it is not text, or it is empty.
    """
    path = Path(source)
    if path.exists():
        dataset = _load_files(path, cache=cache)
    elif path.suffix in READERS or path.suffix in COMPRESSED or str(source).startswith((".", "/", "~")):
        raise TextSourceError(f"`{source}` does not exist. Give an existing text file or folder, or a dataset's name.")
    else:
        dataset = _load_from_hub(str(source), config or DEFAULT_CONFIGS.get(str(source)), split)
    if "text" not in dataset.column_names:
        raise TextSourceError(
            f"`{source}` has the columns {dataset.column_names}; documents are read from a column named `text`. Rename one."
        )
    dataset = dataset.select_columns(["text"])
    if "wikitext" in str(source):
        dataset = _join_wikitext(dataset)
    if not any(text and not text.isspace() for text in _texts(dataset)):
        raise TextSourceError(f"`{source}` holds no text. Give a file with sentences in it, documents apart by blank lines.")
    return dataset


def split_documents(documents: Dataset, *, held_out: int, seed: int) -> tuple[Dataset, Dataset]:
    """Splits documents into (train, held out); `held_out` is a number of documents, at most a tenth of all.

    A single document cannot be split by document: it is cut into pieces first, so that training and held-out text differ.
    """
    if len(documents) < 10:
        documents = _cut_documents(documents, pieces=20)
    parts = documents.train_test_split(test_size=max(1, min(held_out, len(documents) // 10)), seed=seed)
    return parts["train"], parts["test"]


def _load_files(path: Path, *, cache: bool) -> Dataset:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    by_reader: dict[str, list[str]] = {}
    for file in files:
        reader = _reader_of(file)
        if reader is None and path.is_dir():
            continue
        if file.stat().st_size == 0:
            if path.is_dir():
                continue
            raise TextSourceError(f"`{file}` is empty. Give a file with sentences in it, documents apart by blank lines.")
        _check_is_text(file)
        by_reader.setdefault(reader or "text", []).append(str(file))
    if not by_reader:
        raise TextSourceError(
            f"`{path}` holds no file that can be read as text. Readable: {', '.join(READERS)}, "
            f"each also compressed as {', '.join(sorted(COMPRESSED))}."
        )
    parts = [_read(reader, names, cache=cache) for reader, names in by_reader.items()]
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _read(reader: str, names: list[str], *, cache: bool) -> Dataset:
    # A blank line ends a document of a plain text file; the other kinds have one document a row.
    options: dict[str, Any] = {"sample_by": "paragraph"} if reader == "text" else {}
    if not cache:
        options["download_mode"] = "force_redownload"
    try:
        dataset = load_dataset(reader, data_files=names, split="train", **options)
    except (DatasetGenerationError, UnicodeDecodeError) as error:
        raise TextSourceError(
            f"{', '.join(f'`{name}`' for name in names)} cannot be read as {reader}: {error.__cause__ or error}. "
            "Text must be UTF-8."
        ) from error
    columns = [name for name in dataset.column_names if name == "text"] or dataset.column_names
    return dataset.select_columns(columns)


def _load_from_hub(name: str, config: str | None, split: str) -> Dataset:
    try:
        if config is None and len(configs := get_dataset_config_names(name)) > 1:
            raise TextSourceError(f"The dataset `{name}` has several configurations. Name one of: {', '.join(configs)}.")
        dataset = load_dataset(name, config, split=split)
    except TextSourceError:
        raise
    except (ConnectionError, FileNotFoundError, ValueError, DatasetGenerationError, OSError) as error:
        raise TextSourceError(
            f"The dataset `{name}` (configuration {config!r}, split {split!r}) cannot be loaded: {error} "
            "Check the name and the connection, or give a local file or folder."
        ) from error
    if isinstance(dataset, DatasetDict) or not isinstance(dataset, Dataset):
        raise TextSourceError(f"The dataset `{name}` has no single split `{split}`. Name one split.")
    return dataset


def _reader_of(file: Path) -> str | None:
    suffixes = [suffix for suffix in file.suffixes if suffix not in COMPRESSED]
    return READERS.get(suffixes[-1].lower()) if suffixes else None


def _check_is_text(file: Path) -> None:
    """Looks at the beginning only: a binary file given by mistake shows itself there."""
    if file.suffix in COMPRESSED or file.suffix == ".parquet":
        return
    with file.open("rb") as stream:
        head = stream.read(65536)
    try:
        # A multi-byte character may be cut by the end of what was read.
        head.decode("utf-8") if len(head) < 65536 else head[:-4].decode("utf-8", errors="strict")
        readable = b"\0" not in head
    except UnicodeDecodeError as error:
        readable = error.start >= len(head) - 8
    if not readable:
        raise TextSourceError(f"`{file}` is not UTF-8 text. Give a text file, or convert it to UTF-8 first.")


def _texts(dataset: Dataset) -> Iterator[str | None]:
    for batch in dataset.iter(batch_size=1000):
        yield from batch["text"]


def _from_texts(texts: Iterable[str]) -> Dataset:
    return Dataset.from_dict({"text": list(texts)})


def _join_wikitext(dataset: Dataset) -> Dataset:
    """WikiText has one line a row and marks an article's title as ` = Title = `; its rows are joined to articles."""
    if not any(WIKITEXT_TITLE.match(text or "") for text in dataset[:200]["text"]):
        return dataset

    def articles() -> Iterator[str]:
        lines: list[str] = []
        for text in _texts(dataset):
            line = (text or "").rstrip("\n")
            if WIKITEXT_TITLE.match(line) and lines:
                yield "\n".join(lines)
                lines = []
            if line.strip():
                lines.append(line.strip())
        if lines:
            yield "\n".join(lines)

    return _from_texts(articles())


def _cut_documents(documents: Dataset, *, pieces: int) -> Dataset:
    lines = [line for text in _texts(documents) for line in (text or "").splitlines() if line.strip()]
    if len(lines) < pieces:
        lines = [part for line in lines for part in re.split(r"(?<=[.!?])\s+", line) if part]
    size = max(1, -(-len(lines) // pieces))
    cut = ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]
    if len(cut) < 2:
        raise TextSourceError("The text is a single sentence; training and held-out text cannot be told apart. Give more.")
    return _from_texts(cut)
