"""Where text comes from: local files and folders, and datasets on the Hub, all read by `datasets`.

Every function returns a dataset whose column `text` holds strings, or raises `TextSourceError` with the way out.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import datasets
from datasets import Dataset, Value, concatenate_datasets, get_dataset_config_names, load_dataset
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError
from datasets.table import CastError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..errors import SchuBertError
from ..run.progress import quiet

# What `datasets` calls the reader of each kind of file.
READERS = {".txt": "text", ".text": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
# Datasets that need a configuration, and the one that is meant where none is named.
DEFAULT_CONFIGS = {"wikitext": "wikitext-103-raw-v1", "Salesforce/wikitext": "wikitext-103-raw-v1"}

WITH_SENTENCES = "Give text with sentences in it, documents separated by blank lines."
EMPTY = f"is empty. {WITH_SENTENCES}"
# What `datasets` leaves in a document of a plain text file: a blank line with white space in it, a byte-order mark.
UNTIDY = re.compile(r"\0|\ufeff|\n[^\S\n]+\n")
BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# `datasets` wraps most of them in its own error, but not while it streams.
READ_ERRORS = (
    DatasetGenerationError,
    ValueError,
    OSError,
    EOFError,
    BadZipFile,
    LZMAError,
    zlib.error,
)


class TextSourceError(SchuBertError):
    """The text to train on cannot be found, cannot be read, or holds no documents."""


def local_path(source: str | Path) -> Path | None:
    """The path of a local file or folder; None for the name of a dataset on the Hub.

    Raises:
        TextSourceError: it was meant as a path, and nothing is there.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    local = isinstance(source, Path) or source.startswith((".", "/", "~"))
    if local or path.suffix.lower() in {*READERS, *COMPRESSED}:
        raise TextSourceError(f"`{source}` does not exist. Give an existing text file or folder, or a dataset's name.")
    return None


def read_files(path: Path, *, cache: bool) -> Dataset:
    """The text of a file, or of all readable files below a folder (hidden ones left out)."""
    parts = [_read(reader, files, cache=cache) for reader, files in files_by_reader(path).items()]
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def read_hub(name: str, config: str | None, split: str) -> Dataset:
    """The text of one split of a dataset on the Hub; from `datasets`' cache where the Hub cannot be reached."""
    return text_column(load_hub(name, config, split), f"The dataset `{name}`")


def load_hub(name: str, config: str | None, split: str, *, streaming: bool = False) -> Any:
    """One split of a dataset on the Hub with all its columns; an `IterableDataset` when `streaming`."""
    config = config or DEFAULT_CONFIGS.get(name)
    reachable = True
    try:
        reachable = _reachable(name)
        with contextlib.nullcontext() if reachable else _offline():
            if config is None and len(configs := get_dataset_config_names(name)) > 1:
                raise TextSourceError(
                    f"The dataset `{name}` has several configurations. Name one of: {', '.join(configs)}."
                )
            return load_dataset(name, config, split=split, streaming=streaming)
    except TextSourceError:
        raise
    except (*READ_ERRORS, RuntimeError) as error:
        reason = first_line(error) if reachable else "the Hub cannot be reached, and it is not in the cache."
        raise TextSourceError(
            f"`{name}` is not a local file or folder, and cannot be loaded as a dataset (configuration {config!r}, "
            f"split {split!r}): {reason} Check the name and the connection, or give a local file or folder."
        ) from error


def files_by_reader(path: Path) -> dict[str, list[str]]:
    """The readable files of a path by the name that `datasets` has for their reader, without hidden and empty ones.

    Raises:
        TextSourceError: there are none.
    """
    if not path.is_dir():
        if path.stat().st_size == 0:
            raise TextSourceError(f"`{path}` {EMPTY}")
        return {_reader_of(path) or "text": [str(path)]}
    by_reader: dict[str, list[str]] = {}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        reader = _reader_of(file)
        if reader is not None and not hidden and file.is_file() and file.stat().st_size:
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


def reader_options(reader: str) -> dict[str, Any]:
    """A blank line ends a document of a plain text file; the other kinds have one document a row."""
    return {"sample_by": "paragraph"} if reader == "text" else {}


def _read(reader: str, files: list[str], *, cache: bool) -> Dataset:
    try:
        with quiet(), _cache_folder(cache) as folder:
            dataset = load_dataset(
                reader,
                data_files=files,
                split="train",
                cache_dir=folder,
                keep_in_memory=not cache,
                **reader_options(reader),
            )
    except READ_ERRORS as error:
        if len(files) > 1:  # either the one at fault says so when it is read alone, or only their columns differ
            return concatenate_datasets([_read(reader, [file], cache=cache) for file in files])
        raise TextSourceError(f"`{files[0]}` {complaint(reader, error)}") from error
    dataset = text_column(dataset, ", ".join(f"`{file}`" for file in files[:3]) + (", ..." if len(files) > 3 else ""))
    if reader == "text" and any(UNTIDY.search(text) for batch in dataset.iter(1000) for text in batch["text"]):
        with quiet():
            return dataset.map(tidy, batched=True, fn_kwargs={"file": files[0]})
    return dataset


def complaint(reader: str, error: BaseException) -> str:
    """The rest of an error that begins with a file's name: why it cannot be read."""
    cause = error.__cause__ or error
    if isinstance(cause, SchemaInferenceError):  # no rows
        return EMPTY
    if isinstance(cause, UnicodeDecodeError):
        return f"is not UTF-8 text ({cause}). Give a text file, or convert it to UTF-8 first."
    return f"cannot be read as {reader}: {first_line(cause)}"


def text_column(dataset: Dataset, source: str) -> Dataset:
    """The column `text` alone.

    Args:
        dataset: any dataset.
        source: what errors call the dataset.

    Raises:
        TextSourceError: there is no such column, or it does not hold strings.
    """
    if "text" not in dataset.column_names:
        raise TextSourceError(
            f"{source} has the columns {dataset.column_names}; documents are read from the column `text`. Rename one."
        )
    feature = dataset.features["text"]
    if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string", "null"):
        raise TextSourceError(f"{source} has a column `text` that holds {feature}; allowed are strings.")
    return dataset.select_columns(["text"])


def tidy(batch: dict[str, list[str]], file: str) -> dict[str, list[str]]:
    """Splits plain text where a blank line has white space in it, and drops byte-order marks.

    Raises:
        TextSourceError: it holds null bytes, so it is not text.
    """
    if any("\0" in text for text in batch["text"]):
        raise TextSourceError(f"`{file}` is not text: it holds null bytes. Give a text file.")
    return {"text": [part for text in batch["text"] for part in BLANK_LINE.split(text.removeprefix("\ufeff"))]}


def _reachable(name: str) -> bool:
    """Asks the Hub once: `datasets` itself would retry for half a minute before it looked into its cache."""
    try:
        HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(name, timeout=10)
    except HFValidationError:
        raise
    except HfHubHTTPError:  # it answered; what it says is better explained by `datasets`
        return True
    except Exception:  # the HTTP library's own errors: which library that is differs between releases
        return False
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _cache_folder(cache: bool) -> Iterator[str | None]:
    if cache:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def first_line(error: BaseException) -> str:
    """The first line of an error's message, as a sentence."""
    if isinstance(error, CastError):  # whose first line says nothing
        return "its columns, or their types, are not the same all through. Keep the column `text` alone."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if lines[0].endswith((".", "!", "?")) else f"{lines[0]}."
