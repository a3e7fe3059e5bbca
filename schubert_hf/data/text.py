"""Raw text to documents, loaded or streamed, and the documents that are held out from training.

A document is what the next-sentence task draws consecutive sentences from: one block of a text file (separated by
blank lines; one line of a file that has none), or one row of a dataset.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from datasets import Dataset, IterableDataset

from .in_memory import documents_in_memory
from .pairs import split_sentences
from .sources import FIRST, WITH_SENTENCES, TextSourceError, read_text, texts_of

WIKITEXT_TITLE = re.compile(r"^ = [^=].* = ?$")
FEW = 10  # documents
PIECES = 20
SEARCHED = 200_000  # documents that are searched for held-out ones, a hundredth of all


def load_documents(
    source: str | Path | Sequence[str] | Dataset,
    *,
    config: str | None = None,
    split: str = "train",
    cache: bool = True,
) -> Dataset:
    """Reads documents from a local file, a folder of files, a dataset on the Hub, or memory.

    Args:
        source: a path (`.txt`, `.jsonl`, `.parquet`, `.csv`, each also compressed with gz, xz, bz2 or zst; or a
            folder of such files), the name of a dataset with a column `text`, a list of documents, or a dataset in
            memory with that column.
        config: the dataset's configuration; only for datasets on the Hub.
        split: the dataset's split; only for datasets on the Hub.
        cache: keep the documents in `datasets`' cache between runs; otherwise local files are held in memory.

    Returns:
        A dataset with the single column `text`, one document per row.

    Raises:
        TextSourceError: the source does not exist, is not text, or is empty.
    """
    if not isinstance(source, str | Path):
        return documents_in_memory(source)
    documents: Dataset = read_text(source, config, split, cache=cache)
    if _is_wikitext(source, documents[:FIRST]["text"]):
        documents = Dataset.from_generator(_join_wikitext, gen_kwargs={"lines": documents})
    if not any(text and not text.isspace() for text in texts_of(documents)):
        raise TextSourceError(f"`{source}` holds no text. {WITH_SENTENCES}")
    return documents


def stream_documents(
    source: str | Path | Sequence[str] | Dataset, *, config: str | None = None, split: str = "train"
) -> IterableDataset:
    """Opens local files or a dataset on the Hub to read documents one by one, without storing them.

    The documents are those of `load_documents`, in the same order, every file a shard. Only the first few are checked
    here; an error further on is raised when it is reached.

    Args:
        source, config, split: see `load_documents`; the files of a folder must all be of one kind.

    Raises:
        TextSourceError: the source does not exist, is not text, or its first documents are empty; or it cannot be
            streamed: files of several kinds, or WikiText, whose articles are cut into lines.
    """
    if not isinstance(source, str | Path):
        return documents_in_memory(source).to_iterable_dataset()
    documents: IterableDataset = read_text(source, config, split, streaming=True)
    head = [row["text"] or "" for row in islice(documents, FIRST)]
    if not any(text.strip() for text in head):
        where = f" in its first {FIRST} documents" if len(head) == FIRST else ""
        raise TextSourceError(f"`{source}` holds no text{where}. {WITH_SENTENCES}")
    if _is_wikitext(source, head):
        raise TextSourceError(
            f"`{source}` has one line per row, and a stream cannot join lines to articles. It is small: load it "
            "without streaming, or give files with one article per document."
        )
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
        documents = _cut_documents(documents)
    parts = documents.train_test_split(test_size=max(1, min(held_out, len(documents) // 10)), seed=seed)
    return parts["train"], parts["test"]


def held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a streamed document is held out from training, as `per_mille` of 1000 are.

    Its CRC-32 decides, so its place in the corpus does not matter.
    """
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 1000 < per_mille


def not_held_out(text: str, *, per_mille: int = 10) -> bool:
    """Whether a document is trained on; a named function, because DataLoader workers have to pickle it."""
    return not held_out(text, per_mille=per_mille)


def held_out_documents(documents: IterableDataset, number: int) -> Dataset:
    """The first `number` documents that `held_out` keeps from training; fewer where `SEARCHED` documents hold fewer.

    Raises:
        TextSourceError: they hold none.
    """
    texts = (row["text"] for row in islice(documents, SEARCHED))
    selected = list(islice((text for text in texts if text and held_out(text)), number))
    if not selected:
        raise TextSourceError(
            f"None of the first {SEARCHED} documents is held out: there are too few. Give separate held-out text "
            "(`--eval-text`), or load the text without streaming."
        )
    return Dataset.from_dict({"text": selected})


def _is_wikitext(source: str | Path, head: list[str | None]) -> bool:
    """Whether rows are WikiText's: one line each, an article's title marked as ` = Title = `."""
    return "wikitext" in str(source) and any(WIKITEXT_TITLE.match(text or "") for text in head)


def _join_wikitext(lines: Dataset) -> Iterator[dict[str, str]]:
    article: list[str] = []
    for text in texts_of(lines):
        if WIKITEXT_TITLE.match(text.rstrip("\n")) and article:
            yield {"text": "\n".join(article)}
            article = []
        if text.strip():
            article.append(text.strip())
    if article:
        yield {"text": "\n".join(article)}


def _cut_documents(documents: Dataset) -> Dataset:
    """About `PIECES` documents of whole lines or, where there are not enough lines, of whole sentences."""
    lines = [line for text in texts_of(documents) for line in text.splitlines() if line.strip()]
    if len(lines) < PIECES:
        lines = [sentence for line in lines for sentence in split_sentences(line)]
    size = max(1, -(-len(lines) // PIECES))
    cut = ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]
    if len(cut) < 2:
        raise TextSourceError(
            "The text is a single sentence, which cannot be split into training and held-out text. Give more text."
        )
    return Dataset.from_dict({"text": cut})
