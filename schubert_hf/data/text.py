"""Raw text to documents.

A document is what the next-sentence task draws consecutive sentences from: one block of a text file, whose blocks are
separated by blank lines, or one row of a dataset. Everything is read by `datasets`, which memory-maps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from .sources import WITH_SENTENCES, TextSourceError, local_path, read_files, read_hub

__all__ = ["TextSourceError", "load_documents", "split_documents"]

WIKITEXT_TITLE = re.compile(r"^ = [^=].* = ?$")
FEW = 10  # documents
PIECES = 20


def load_documents(
    source: str | Path, *, config: str | None = None, split: str = "train", cache: bool = True
) -> Dataset:
    """Reads documents from a local file, a folder of files, or a dataset on the Hub.

    Args:
        source: a path (`.txt`, `.jsonl`, `.parquet`, `.csv`, each also compressed with gz, xz, bz2 or zst; or a
            folder of such files) or the name of a dataset with a column `text`.
        config: the dataset's configuration; only for datasets on the Hub.
        split: the dataset's split; only for datasets on the Hub.
        cache: keep the documents in `datasets`' cache between runs; otherwise local files are held in memory.

    Returns:
        A dataset with the single column `text`, one document per row.

    Raises:
        TextSourceError: the source does not exist, is not text, or is empty.
    """
    path = local_path(source)
    documents = read_files(path, cache=cache) if path is not None else read_hub(str(source), config, split)
    if "wikitext" in str(source):
        documents = _join_wikitext(documents)
    if not any(text and not text.isspace() for text in _texts(documents)):
        raise TextSourceError(f"`{source}` holds no text. {WITH_SENTENCES}")
    return documents


def split_documents(documents: Dataset, *, held_out: int, seed: int) -> tuple[Dataset, Dataset]:
    """Splits documents into (train, held out).

    Fewer than `FEW` documents are cut into pieces first, so that training and held-out text are alike but differ.

    Args:
        documents: a dataset with the column `text`.
        held_out: how many documents are held out; never more than a tenth of all, always at least one.
        seed: decides which.

    Raises:
        TextSourceError: the text is a single sentence.
    """
    if len(documents) < FEW:
        documents = _cut_documents(documents, PIECES)
    parts = documents.train_test_split(test_size=max(1, min(held_out, len(documents) // 10)), seed=seed)
    return parts["train"], parts["test"]


def _texts(documents: Dataset) -> Iterator[str | None]:
    for batch in documents.iter(batch_size=1000):
        yield from batch["text"]


def _join_wikitext(lines: Dataset) -> Dataset:
    """Joins WikiText's rows to articles: it has one line per row and marks titles as ` = Title = `."""
    if not any(WIKITEXT_TITLE.match(text or "") for text in lines[:200]["text"]):
        return lines
    return Dataset.from_generator(_articles, gen_kwargs={"lines": lines})


def _articles(lines: Dataset) -> Iterator[dict[str, str]]:
    article: list[str] = []
    for text in _texts(lines):
        line = (text or "").rstrip("\n")
        if WIKITEXT_TITLE.match(line) and article:
            yield {"text": "\n".join(article)}
            article = []
        if line.strip():
            article.append(line.strip())
    if article:
        yield {"text": "\n".join(article)}


def _cut_documents(documents: Dataset, pieces: int) -> Dataset:
    """About `pieces` documents of whole lines or, where there are not enough lines, of whole sentences."""
    lines = [line for text in _texts(documents) for line in (text or "").splitlines() if line.strip()]
    if len(lines) < pieces:
        lines = [part for line in lines for part in re.split(r"(?<=[.!?])\s+", line) if part]
    size = max(1, -(-len(lines) // pieces))
    cut = ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]
    if len(cut) < 2:
        raise TextSourceError(
            "The text is a single sentence, which cannot be split into training and held-out text. Give more text."
        )
    return Dataset.from_dict({"text": cut})
