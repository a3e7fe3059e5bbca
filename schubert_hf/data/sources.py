"""Where text comes from: local files and folders, and datasets on the Hub, all read by `datasets`.

Every source gives a dataset whose only column `text` holds strings, or raises `TextSourceError`. A streamed source
gives an `IterableDataset` with the same rows, of which only the first few are checked.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import zlib
from collections.abc import Iterator
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import datasets
import fsspec
from datasets import (
    Dataset,
    IterableDataset,
    Value,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
)
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError
from datasets.table import CastError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..errors import SchuBertError
from ..run.progress import quiet
from ..run.provenance import with_code
from .files import load_files

# What `datasets` calls the reader of each kind of file.
READERS = {".txt": "text", ".text": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
# Datasets that need a configuration, and the one that is meant where none is named.
DEFAULT_CONFIGS = {"wikitext": "wikitext-103-raw-v1", "Salesforce/wikitext": "wikitext-103-raw-v1"}
FIRST = 100  # documents of a streamed source that are checked before any training
# Bytes read at a time from a streamed file; by default `datasets` reads ten times as much.
BLOCK = {"chunksize": 1 << 20}

WITH_SENTENCES = "Give text with sentences in it, documents separated by blank lines, or one per line."
EMPTY = f"is empty. {WITH_SENTENCES}"
# What `datasets` leaves in a document of a plain text file: a blank line with white space in it, a byte-order mark.
UNTIDY = re.compile(r"\0|\ufeff|\n[^\S\n]+\n")
BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
LINES = "lines"  # a file of plain text without blank lines: every line is a document; in a folder, the file is one
HEAD = 1 << 20  # bytes that are searched for a blank line
# `datasets` wraps most of them in its own error, but not while it streams.
READ_ERRORS = (DatasetGenerationError, ValueError, OSError, EOFError, BadZipFile, LZMAError, zlib.error)


class TextSourceError(SchuBertError):
    """The text to train on cannot be found, cannot be read, or holds no documents."""


def read_text(
    source: str | Path, config: str | None, split: str, *, cache: bool = True, streaming: bool = False
) -> Any:
    """The text of a file, of all readable files below a folder (hidden and empty ones left out), or of a dataset.

    Args:
        source: a path, or the name of a dataset on the Hub, which has `config` and `split`.
        cache: keep what was read of files in `datasets`' cache; without it, it is held in memory.
        streaming: give an `IterableDataset`, in which every file is a shard.

    Raises:
        TextSourceError: nothing can be read as text; or there are files of several kinds when `streaming`.
    """
    path = local_path(source)
    if path is None:
        return _read_hub(str(source), config, split, streaming)
    by_reader = files_by_reader(path)
    if streaming and len(by_reader) > 1:
        kinds = ", ".join(f"{len(files)} of {reader}" for reader, files in by_reader.items())
        raise TextSourceError(
            f"`{path}` holds files of several kinds ({kinds}); only one kind can be streamed. Give a folder of one."
        )
    parts = [_read(reader, files, cache, streaming) for reader, files in by_reader.items()]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def texts_of(documents: Dataset) -> Iterator[str]:
    """The rows of the column `text`; "" for those that hold nothing."""
    for batch in documents.iter(batch_size=1000):
        yield from (text or "" for text in batch["text"])


def first_line(error: BaseException) -> str:
    """The first line of an error's message, as a sentence."""
    if isinstance(error, CastError):  # whose first line says nothing
        return "its columns, or their types, are not the same all through. Keep the column `text` alone."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if lines[0].endswith((".", "!", "?")) else f"{lines[0]}."


def local_path(source: str | Path) -> Path | None:
    """The path of a local file or folder; None for the name of a dataset on the Hub."""
    path = Path(source).expanduser()
    with contextlib.suppress(OSError):  # a text is longer than names may be
        if source != "" and path.exists():
            return path
    if isinstance(source, Path) or source[:1] in (".", "/", "~") or path.suffix.lower() in {*READERS, *COMPRESSED}:
        raise TextSourceError(f"`{source}` does not exist. Give an existing text file or folder, or a dataset's name.")
    if re.search(r"\s", name := str(source)):
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise TextSourceError(
            f"There is no file `{shown}`. Give an existing text file or folder, or a dataset's name; from Python text "
            "itself is a list of documents."
        )
    return None


def files_by_reader(path: Path) -> dict[str, list[str]]:
    """The readable files of a path by what `datasets` calls their reader."""
    if not path.is_dir():
        if path.stat().st_size == 0:
            raise TextSourceError(f"`{path}` {EMPTY}")
        kind = _reader_of(path) or "text"
        return {LINES if kind == "text" and _has_lines_alone(path) else kind: [str(path)]}
    by_reader: dict[str, list[str]] = {}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if not hidden and (reader := _reader_of(file)) and file.is_file() and file.stat().st_size:
            by_reader.setdefault(reader, []).append(str(file))
    if not by_reader:
        raise TextSourceError(
            f"`{path}` holds no file that can be read as text. Readable: {', '.join(READERS)}, "
            f"each also compressed as {', '.join(sorted(COMPRESSED))}."
        )
    return by_reader


def _reader_of(file: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSED]
    return READERS.get(suffixes[-1]) if suffixes else None


def _has_lines_alone(file: Path) -> bool:
    with contextlib.suppress(*READ_ERRORS), fsspec.open(str(file), compression="infer") as opened:
        head = opened.read(HEAD).decode(errors="replace").strip()
        return "\n" in head and not BLANK_LINE.search(head)
    return False  # `datasets` says what is wrong


def _read(kind: str, files: list[str], cache: bool, streaming: bool) -> Any:
    name = f"`{files[0]}`" + (f" and the {len(files) - 1} files after it" if len(files) > 1 else "")
    options: dict[str, Any] = {"streaming": streaming}
    reader = "text" if kind == LINES else kind
    if reader == "text":  # a blank line ends a document; the other kinds have one document per row
        options["sample_by"] = "line" if kind == LINES else "paragraph"
    if streaming and reader in ("text", "json"):
        options |= BLOCK
    try:
        with quiet(), contextlib.nullcontext() if cache else tempfile.TemporaryDirectory() as folder:
            dataset = load_files(reader, files, cache_dir=folder, keep_in_memory=not cache, **options)
            if streaming and reader == "parquet" and "text" in dataset.column_names:  # reads no other column then
                dataset = load_files(reader, files, columns=["text"], **options)
            dataset = _select_text(dataset, name)
            return _tidy(dataset, files[0]) if reader == "text" else dataset
    except TextSourceError:
        raise
    except READ_ERRORS as error:
        # Of several files, the one at fault says so when it is read alone; or only their columns differ.
        alone = [_read(kind, [file], cache, streaming) for file in files] if len(files) > 1 else []
        if alone and not streaming:
            return concatenate_datasets(alone)
        raise TextSourceError(f"{name} {_complaint(reader, error)}") from error


def _complaint(reader: str, error: BaseException) -> str:
    """The rest of an error that begins with a file's name: why it cannot be read."""
    cause = error.__cause__ or error
    if isinstance(cause, SchemaInferenceError):  # no rows
        return EMPTY
    if isinstance(cause, UnicodeDecodeError):
        return f"is not UTF-8 text ({cause}). Give a text file, or convert it to UTF-8 first."
    return f"cannot be read as {reader}: {first_line(cause)}"


def _select_text(dataset: Any, source: str) -> Any:
    """The column `text` alone, checked to exist and to hold strings; `source` begins the error."""
    sample = dataset
    if isinstance(dataset, IterableDataset):  # its columns and their types are certain once rows have been read
        if "text" in (dataset.column_names or []):
            dataset = dataset.select_columns(["text"])  # before anything is read: the other columns may be large
        rows = list(islice(dataset, FIRST))
        if not rows:
            raise TextSourceError(f"{source} {EMPTY}")
        sample = Dataset.from_list(rows, features=dataset.features)
    if "text" not in sample.column_names:
        raise TextSourceError(
            f"{source} has the columns {sample.column_names}; documents are read from the column `text`. Rename one."
        )
    feature = sample.features["text"]
    if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string", "null"):
        raise TextSourceError(f"{source} has a column `text` that holds {feature}; allowed are strings.")
    return dataset.select_columns(["text"])


def _tidy(dataset: Any, file: str) -> Any:
    """Splits plain text where a blank line has white space in it, and drops byte-order marks."""
    options: dict[str, Any] = {"batched": True, "features": dataset.features, "fn_kwargs": {"file": file}}
    if isinstance(dataset, IterableDataset):
        return dataset.map(_split_blocks, batch_size=1, **options)  # row by row, its state is exact
    untidy = any(UNTIDY.search(text) for text in texts_of(dataset))
    return dataset.map(with_code(_split_blocks), **options) if untidy else dataset


def _split_blocks(batch: dict[str, list[str]], file: str) -> dict[str, list[str]]:
    if any("\0" in text for text in batch["text"]):
        raise TextSourceError(f"`{file}` is not text: it holds null bytes. Give a text file.")
    return {"text": [part for text in batch["text"] for part in BLANK_LINE.split(text.removeprefix("\ufeff"))]}


def _read_hub(name: str, config: str | None, split: str, streaming: bool) -> Any:
    """The text of one split of a dataset on the Hub; from `datasets`' cache where the Hub cannot be reached."""
    config = config or DEFAULT_CONFIGS.get(name)
    reachable = True
    try:
        with _hub(name) as reachable:
            if config is None and len(configs := get_dataset_config_names(name)) > 1:
                raise TextSourceError(
                    f"The dataset `{name}` has several configurations. Name one of: {', '.join(configs)}."
                )
            dataset = load_dataset(name, config, split=split, streaming=streaming)
        with quiet():
            return _select_text(dataset, f"The dataset `{name}`")
    except TextSourceError:
        raise
    except (*READ_ERRORS, RuntimeError) as error:
        reason = first_line(error) if reachable else "the Hub cannot be reached, and it is not in the cache."
        how, way_out = ("streamed", "load it without streaming, ") if streaming else ("loaded", "")
        raise TextSourceError(
            f"`{name}` is not a local file or folder, and cannot be {how} as a dataset (configuration {config!r}, "
            f"split {split!r}): {reason} Check the name and the connection, {way_out}or give a local file or folder."
        ) from error


@contextlib.contextmanager
def _hub(name: str) -> Iterator[bool]:
    """Whether the Hub can be reached. Where it cannot, `datasets` looks into its cache at once.

    It is asked once: `datasets` itself would retry for half a minute.
    """
    before = datasets.config.HF_HUB_OFFLINE
    reachable = True
    try:
        HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(name, timeout=10)
    except HFValidationError:
        raise
    except HfHubHTTPError:  # it answered; what it says is better explained by `datasets`
        pass
    except Exception:  # the HTTP library's own errors: which library that is differs between releases
        reachable = False
    try:
        datasets.config.HF_HUB_OFFLINE = before or not reachable
        yield reachable
    finally:
        datasets.config.HF_HUB_OFFLINE = before
