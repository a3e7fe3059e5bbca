"""Pairs of texts from two columns of a file or dataset, for models that read two texts, such as rerankers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, Value, concatenate_datasets, load_dataset
from transformers import PreTrainedTokenizerBase

from ..run.progress import map_rows, quiet
from .files import load_files
from .pairs import require_pairable
from .sources import READ_ERRORS, TextSourceError, files_by_reader, first_line, local_path
from .spans import FEATURES

SUFFIXES = ".jsonl, .csv and .parquet"


def load_pairs(
    source: str | Path | Dataset, columns: tuple[str, str], *, config: str | None = None, split: str = "train"
) -> Dataset:
    """Reads two columns of text from local files, a dataset on the Hub, or a dataset in memory.

    Args:
        source: a file or folder of jsonl, csv or parquet, a dataset's name, or a `datasets.Dataset`.
        columns: names of the two, in the order in which the model reads them.
        config, split: of a dataset on the Hub.

    Returns:
        A dataset with these two columns, without rows in which one is empty.

    Raises:
        TextSourceError: nothing can be read, a column is missing or holds no strings, or no row is whole.
    """
    if isinstance(source, Dataset):
        found, name = source, "The dataset"
    elif isinstance(source, str | Path):
        found, name = _read(source, config, split), f"`{source}`"
    else:
        raise TextSourceError(
            f"The pairs are a {type(source).__name__}; give a file, a folder, a dataset's name or a `Dataset` "
            f"with the columns {', '.join(columns)}."
        )
    missing = [column for column in columns if column not in found.column_names]
    if missing:
        raise TextSourceError(
            f"{name} has the columns {', '.join(found.column_names)}; `pair_columns` names {', '.join(missing)}. Name "
            "two that it has."
        )
    for column in columns:
        feature = found.features[column]
        if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string"):
            raise TextSourceError(f"{name} has a column `{column}` that holds {feature}; allowed are strings.")
    with quiet():
        pairs = found.select_columns(list(columns)).filter(_is_whole, input_columns=list(columns))
    if len(pairs) == 0:
        raise TextSourceError(f"{name} has no row with text in both {' and '.join(columns)}. Give at least two.")
    return pairs


def tokenize_pairs(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 128) -> Dataset:
    """Two columns of text as examples `[CLS] first [SEP] second [SEP]`, the longer text cut where both are too long.

    Returns:
        A dataset with the columns `input_ids` and `token_type_ids`.

    Raises:
        TextSourceError, TokenizerError: see `make_pairs`.
    """
    require_pairable(tokenizer, max_length)
    first, second = pairs.column_names

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        encoded = tokenizer(batch[first], batch[second], truncation=True, max_length=max_length, verbose=False)
        ids = encoded["input_ids"]
        segments = encoded.get("token_type_ids") or [[0] * len(row) for row in ids]
        return {"input_ids": ids, "token_type_ids": segments}

    return map_rows(
        pairs, encode, "Tokenizing pairs of texts", batched=True, remove_columns=pairs.column_names, features=FEATURES
    )


def split_rows(rows: Dataset, *, held_out: int, seed: int) -> tuple[Dataset, Dataset]:
    """Splits rows into (train, held out): at most a tenth is held out, at least one row.

    Raises:
        TextSourceError: there is one row only.
    """
    if len(rows) < 2:
        raise TextSourceError("There is one pair only, which cannot be both trained on and held out. Give more.")
    parts = rows.train_test_split(test_size=max(1, min(held_out, len(rows) // 10)), seed=seed)
    return parts["train"], parts["test"]


def _is_whole(first: str | None, second: str | None) -> bool:
    return bool(first and first.strip() and second and second.strip())


def _read(source: str | Path, config: str | None, split: str) -> Dataset:
    path = local_path(source)
    try:
        with quiet():
            if path is None:
                return load_dataset(str(source), config, split=split)
            by_reader = files_by_reader(path)
            by_reader.pop("text", None)
            if not by_reader:
                raise TextSourceError(f"`{source}` has no columns. Pairs are read from {SUFFIXES} files.")
            parts = [load_files(kind, files) for kind, files in by_reader.items()]
            return parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    except TextSourceError:
        raise
    except READ_ERRORS as error:
        cause = error.__cause__ or error
        raise TextSourceError(
            f"`{source}` cannot be read as pairs of texts: {first_line(cause)} Give {SUFFIXES} files with the same "
            "columns, or the name of a dataset."
        ) from error
