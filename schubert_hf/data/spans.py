"""Documents to unlabelled examples: spans of text, as they are, for models that are matched to their dense selves.

An example is `[CLS] span [SEP]`. A span is a run of whole sentences of one document, of a length that is drawn for
each of them, since users' texts are of every length. Nothing is masked. A masked language model that has never seen
two texts reads spans as well, which fill an example as its pretraining's did (RoBERTa's DOC-SENTENCES, Liu et al.
2019, arXiv 1907.11692).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..heads import next_sentence
from ..run.progress import map_rows
from .frame import Frame
from .pairs import make_pairs, pair_texts, require_pairable, split_sentences, tokenize_documents
from .sources import TextSourceError

FEATURES = Features(input_ids=List(Value("int32")), token_type_ids=List(Value("int8")))
CHOICES = Features(input_ids=List(List(Value("int32"))), token_type_ids=List(List(Value("int8"))))
NUMBER_OF_CHOICES = 4
# From all documents to examples, and from a few documents of a stream to the texts of examples.
Makers = tuple[Callable[..., Dataset], Callable[..., dict[str, list[Any]]]]


def pretraining_makers(model: PreTrainedModel) -> Makers:
    """What a masked language model was pretrained on: pairs where it has a next-sentence head, else full spans."""
    if next_sentence(model) is not None:
        return make_pairs, pair_texts
    return partial(make_spans, full=True), partial(span_texts, full=True)


def make_spans(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 128,
    seed: int = 0,
    prompts: Sequence[str] = (),
    full: bool = False,
    description: str = "Tokenizing text",
) -> Dataset:
    """Tokenises documents and cuts them into spans.

    Args:
        documents: a dataset with the column `text`, one document per row (see `load_documents`).
        max_length: word pieces per example, special tokens included.
        seed: decides where spans are cut.
        prompts: of which each span begins with one, chosen at random, such as "query: "; none by default.
        full: fill the examples; by default every length is as likely.

    Returns:
        A dataset with the columns `input_ids` and `token_type_ids`.

    Raises:
        TextSourceError: the text makes no span, or `max_length` leaves no room for one.
        TokenizerError: the tokenizer has no token to begin, end, mask or pad with.
    """
    make = partial(span_texts, prompts=prompts, full=full)
    return _map(documents, make, tokenizer, max_length, seed, FEATURES, description)


def make_text_pairs(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 128,
    seed: int = 0,
    choices: bool = False,
    description: str = "Tokenizing pairs of passages",
) -> Dataset:
    """Pairs of passages for models that read two texts: half of them follow each other, half do not.

    Args:
        documents, tokenizer, max_length, seed: see `make_spans`.
        choices: give each first passage `NUMBER_OF_CHOICES` second ones, for multiple choice; columns are then lists
            of lists.

    Returns, raises: see `make_spans`.
    """
    make = choice_texts if choices else unlabelled_pairs
    return _map(documents, make, tokenizer, max_length, seed, CHOICES if choices else FEATURES, description)


def span_texts(
    texts: list[str | None],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    rng: random.Random,
    *,
    prompts: Sequence[str] = (),
    full: bool = False,
) -> dict[str, list[Any]]:
    """The examples of a few documents as the columns of `make_spans`; `rng` decides where spans are cut."""
    starts = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts] or [[]]
    frame = Frame.of(tokenizer)
    room = max_length - len(frame.one([])) - max(map(len, starts))  # word pieces of a span
    if room < 1:
        raise TextSourceError(
            f"`max_length` is {max_length}, which the longest prompt fills. Give more, or shorter prompts."
        )

    def draw() -> int:
        """How many word pieces the next span should have."""
        return room if full else rng.randint(1, room)

    rows: list[list[int]] = []
    for sentences in tokenize_documents([split_sentences(text or "") for text in texts], tokenizer, room):
        span: list[int] = []
        target = draw()
        for sentence in sentences:
            if full and span and len(span) + len(sentence) > room:
                rows.append(span)
                span = []
            span += sentence
            if len(span) >= target:
                rows.append(span[:room])
                span, target = [], draw()
        if span:
            rows.append(span)
    ids = [frame.one([*rng.choice(starts), *span]) for span in rows]
    return {"input_ids": ids, "token_type_ids": [[0] * len(row) for row in ids]}


def unlabelled_pairs(
    texts: list[str | None], tokenizer: PreTrainedTokenizerBase, max_length: int, rng: random.Random
) -> dict[str, list[Any]]:
    """The pairs of `pair_texts` without their labels."""
    columns = pair_texts(texts, tokenizer, max_length, rng)
    del columns["next_sentence_label"]
    return columns


def choice_texts(
    texts: list[str | None], tokenizer: PreTrainedTokenizerBase, max_length: int, rng: random.Random
) -> dict[str, list[Any]]:
    """Each first passage with several second ones: its own, and those of other pairs."""
    columns = unlabelled_pairs(texts, tokenizer, max_length, rng)
    ids, end = columns["input_ids"], tokenizer.sep_token_id
    cuts = [row.index(end) + 1 for row in ids]
    chosen: dict[str, list[Any]] = {name: [] for name in columns}
    for number in range(len(ids)):
        others = [rng.randrange(len(ids)) for _ in range(NUMBER_OF_CHOICES - 1)]
        for name, rows in columns.items():
            own = rows[number][: cuts[number]]
            seconds = [rows[other][cuts[other] :] for other in (number, *others)]
            room = max_length - len(own)
            fitted = [row if len(row) <= room else [*row[: room - 1], row[-1]] for row in seconds]
            chosen[name].append([[*own, *row] for row in fitted])
    return chosen


def _map(
    documents: Dataset,
    make: Any,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    seed: int,
    features: Features,
    description: str,
) -> Dataset:
    require_pairable(tokenizer, max_length)

    def of_batch(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        # Seeded by the batch's place, so that the same text gives the same examples whatever ran before.
        columns: dict[str, list[Any]] = make(
            batch["text"], tokenizer, max_length, random.Random(f"{seed}-{indices[0]}")
        )
        return columns

    examples = map_rows(
        documents,
        of_batch,
        description,
        with_indices=True,
        batched=True,
        batch_size=1000,
        remove_columns=documents.column_names,
        features=features,
    )
    if len(examples) == 0:
        raise TextSourceError("The text is too short to make one example of it. Give more of it.")
    return examples
