"""Text that is given in memory, as a list of documents or as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from .sources import WITH_SENTENCES, TextSourceError, texts_of


def documents_in_memory(source: Any) -> Dataset:
    """A list of documents, or a dataset with the column `text`, as a dataset with that column alone.

    Raises:
        TextSourceError: it is neither, holds no text, or names files.
    """
    if isinstance(source, Dataset):
        column = source.features.get("text")
        if not isinstance(column, Value) or column.dtype not in ("string", "large_string"):
            raise TextSourceError(
                f"The dataset has the columns {', '.join(source.column_names)}; it needs a column `text` of strings, "
                'a document in each row. Rename one: `dataset.rename_column(..., "text")`.'
            )
        documents = source.select_columns("text")
    elif isinstance(source, list | tuple) and all(isinstance(text, str) for text in source):
        documents = _of_list(source)
    else:
        kind = type(source).__name__
        if isinstance(source, list | tuple):
            kind += f" of {', '.join(sorted({type(text).__name__ for text in source}))}"
        if isinstance(source, dict):  # also a `DatasetDict`
            kind += f" with the keys {', '.join(map(str, source))}"
        raise TextSourceError(
            f"The text is a {kind}. Give a file, a folder, the name of a dataset, a list of strings, "
            "or one split of a `datasets.Dataset` that is loaded in full."
        )
    if not any(text and not text.isspace() for text in texts_of(documents)):
        raise TextSourceError(f"The {type(source).__name__} holds no text. {WITH_SENTENCES}")
    return documents


def _of_list(texts: Sequence[str]) -> Dataset:
    if texts and all(map(_is_file, texts)):
        raise TextSourceError(
            f"The list holds {len(texts)} names of files, such as `{texts[0]}`, and a list is taken for the documents "
            "themselves. Give the folder that the files are in, or what they hold: `[Path(name).read_text(), ...]`."
        )
    try:
        return Dataset.from_dict({"text": list(texts)}, features=Features(text=Value("string")))
    except UnicodeEncodeError as error:
        raise TextSourceError(
            f"A document cannot be written as UTF-8: {error}. Clean it: `text.encode(errors='replace').decode()`."
        ) from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than a name may be
        return False
