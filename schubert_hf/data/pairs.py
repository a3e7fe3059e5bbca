"""Documents to sentence pairs for masked-language-model and next-sentence training (Devlin et al. 2019, section 3.1).

Each example is `[CLS] A [SEP] B [SEP]`, with the tokenizer's own special tokens (see `frame`). In half of them B
follows A in the same document (label 0); in the other half it is drawn from another document (label 1). A and B are
runs of sentences that together fill `max_length`.
"""

from __future__ import annotations

import random
import re
from itertools import chain, islice
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from ..run.progress import map_rows
from .frame import Frame
from .sources import TextSourceError
from .stream import require_special_tokens

Sentences = list[list[int]]  # a document: word-piece ids by sentence

# A sentence ends at . ! or ?, also inside a closing quote or bracket, before white space; or at the full stops of
# scripts without white space.
SENTENCE_END = re.compile(r"""(?<=[.!?])\s+|(?<=[.!?]["'”’)\]])\s+|(?<=[。！？])\s*""")
SHORT_SEQUENCE_PROBABILITY = 0.1  # as in the original BERT, to train on shorter examples, too
LEAST_LENGTH = 8
# A quarter of the bytes that `datasets` would choose.
FEATURES = Features(
    input_ids=List(Value("int32")), token_type_ids=List(Value("int8")), next_sentence_label=Value("int8")
)


def make_pairs(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 128,
    seed: int = 0,
    description: str = "Tokenizing sentence pairs",
) -> Dataset:
    """Tokenises documents and pairs their sentences.

    Args:
        documents: a dataset with the column `text`, one document per row (see `load_documents`).
        max_length: word pieces per example, special tokens included.
        seed: decides where pairs are cut and which B is random.

    Returns:
        A dataset with the columns `input_ids`, `token_type_ids` and `next_sentence_label` (0: B follows A, 1: random).

    Raises:
        TextSourceError: the text is too short to make one pair, or `max_length` leaves no room for two sentences.
        TokenizerError: the tokenizer has no token to begin, end, mask or pad with.
    """
    require_pairable(tokenizer, max_length)

    def pair_batch(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        # Seeded by the batch's place, so that the same text gives the same pairs whatever ran before.
        return pair_texts(batch["text"], tokenizer, max_length, random.Random(f"{seed}-{indices[0]}"))

    pairs = map_rows(
        documents,
        pair_batch,
        description,
        with_indices=True,
        batched=True,
        batch_size=1000,
        remove_columns=documents.column_names,
        features=FEATURES,
    )
    if len(pairs) == 0:
        raise TextSourceError("The text is too short to make one sentence pair of it. Give at least two sentences.")
    return pairs


def require_pairable(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raises what `make_pairs` raises before it has read any text."""
    require_special_tokens(tokenizer)
    if max_length < LEAST_LENGTH:
        raise TextSourceError(
            f"`max_length` is {max_length}; a pair of sentences with its special tokens needs at least {LEAST_LENGTH}."
        )


def pair_texts(
    texts: list[str | None], tokenizer: PreTrainedTokenizerBase, max_length: int, rng: random.Random
) -> dict[str, list[Any]]:
    """The examples of a few documents as the columns of `make_pairs`; random B's are drawn from these documents.

    `rng` decides where pairs are cut and which B is random.
    """
    frame = Frame.of(tokenizer)
    room = max_length - frame.size
    # A sentence that fills half of an example leaves no room for a second one: it is cut.
    tokenized = tokenize_documents(_join_single([split_sentences(text or "") for text in texts]), tokenizer, room // 2)
    if len(tokenized) == 1 and (middle := len(tokenized[0]) // 2) > 1:  # there must be another one to draw B from
        tokenized = [tokenized[0][:middle], tokenized[0][middle:]]
    examples = [pair for number in range(len(tokenized)) for pair in pair_document(tokenized, number, room, rng)]
    framed = [frame.pair(first, second) for first, second, _ in examples]
    return {
        "input_ids": [ids for ids, _ in framed],
        "token_type_ids": [segments for _, segments in framed],
        "next_sentence_label": [int(is_random) for _, _, is_random in examples],
    }


def split_sentences(text: str) -> list[str]:
    """Splits one document into sentences; line breaks inside it count as spaces."""
    return [sentence for sentence in SENTENCE_END.split(" ".join(text.split())) if sentence]


def tokenize_documents(
    documents: list[list[str]], tokenizer: PreTrainedTokenizerBase, longest: int
) -> list[Sentences]:
    """Documents of sentences to word-piece ids, none empty; sentences of more than `longest` are cut."""
    flat = [sentence for document in documents for sentence in _in_place(document)]
    if not flat:
        return []
    # `verbose=False`: a sentence longer than the model's positions is cut below, so the warning would mislead.
    encoded = tokenizer(
        flat, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    sentences = iter(encoded["input_ids"])
    longest = max(2, longest)
    tokenized = [
        [
            ids[start : start + longest]
            for ids in islice(sentences, len(document))
            for start in range(0, len(ids), longest)
        ]
        for document in documents
    ]
    return [document for document in tokenized if document]


def _join_single(documents: list[list[str]]) -> list[list[str]]:
    """Documents of a single sentence are joined to the next one: a pair has two. Where all are such, they are one."""
    if all(len(sentences) < 2 for sentences in documents):
        return [list(chain.from_iterable(documents))]
    joined: list[list[str]] = []
    pending: list[str] = []
    for sentences in documents:
        pending += sentences
        if len(pending) > 1:
            joined.append(pending)
            pending = []
    if pending:
        joined = [*joined[:-1], joined[-1] + pending] if joined else [pending]
    return joined


def _in_place(sentences: list[str]) -> list[str]:
    """Sentences with the space that stands before them in the text: byte-level word pieces begin with it."""
    spaced = ["" if sentence.endswith(("。", "！", "？")) else " " for sentence in sentences]
    return [space + sentence for space, sentence in zip(["", *spaced], sentences, strict=False)]


def pair_document(
    documents: list[Sentences], number: int, room: int, rng: random.Random
) -> list[tuple[list[int], list[int], bool]]:
    """Pairs the sentences of `documents[number]`, as in the original BERT's data preparation.

    Random B's are drawn from the other documents. Both together have at most `room` word pieces.

    Returns:
        A list of (A, B, is_random).
    """
    document = documents[number]
    pairs: list[tuple[list[int], list[int], bool]] = []
    start = 0
    while start < len(document):
        target = rng.randint(4, room) if rng.random() < SHORT_SEQUENCE_PROBABILITY else room
        end, length = start, 0
        while end < len(document) and length < target:
            length += len(document[end])
            end += 1
        if end - start < 2:
            if end == len(document):
                break  # a single sentence is left: it has no successor, and a random B alone would upset the halves
            end += 1  # a short target, met by one sentence
        split = rng.randint(start + 1, end - 1)
        first = list(chain.from_iterable(document[start:split]))
        is_random = len(documents) > 1 and rng.random() < 0.5
        if is_random:
            second = _random_second(documents, number, target - len(first), rng)
            end = split  # what A did not use is read again: no text is lost to random pairs
        else:
            second = list(chain.from_iterable(document[split:end]))
        first, second = _fit(first, second, room, rng)
        if first and second:
            pairs.append((first, second, is_random))
        start = end
    return pairs


def _random_second(documents: list[Sentences], number: int, target: int, rng: random.Random) -> list[int]:
    other = rng.randrange(len(documents) - 1)
    document = documents[other + (other >= number)]
    second: list[int] = []
    for sentence in document[rng.randrange(max(1, len(document))) :]:
        second += sentence
        if len(second) >= target:
            break
    return second


def _fit(first: list[int], second: list[int], room: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Shortens the longer one until both fit, at its front and its back in random parts."""
    excess = max(0, len(first) + len(second) - room)
    lead = len(first) - len(second)
    # The longer one alone until they are equal, then both by turns.
    alone = min(excess, abs(lead))
    from_first = (alone if lead > 0 else 0) + (excess - alone) // 2

    def shorten(ids: list[int], by: int) -> list[int]:
        front = rng.randint(0, by) if by else 0
        return ids[front : len(ids) - (by - front)]

    return shorten(first, from_first), shorten(second, excess - from_first)
