"""A pruned encoder beside its dense model, on held-out text, SQuAD and MRPC; no network is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..conversion import load, load_for_pretraining, opening
from ..data.padding import PaddingCollator
from ..data.pairs import split_sentences
from ..data.text import load_documents
from ..errors import EvaluationDataError
from ..evaluation.agreement import agreement
from ..evaluation.embeddings import FEWEST, Similarity, compare_embeddings
from ..evaluation.evenly import evenly
from ..evaluation.loading import load_tokenizer
from ..evaluation.paraphrases import average_precision, read_paraphrases
from ..evaluation.retrieval import rank_paragraphs, read_questions
from ..training.reading import head_of
from .examples import unlabelled_examples
from .sentence_encoder import SentenceEncoder

WORDS = 4  # shorter sentences are headings
TEXTS = 1000
BATCH = 32
BY_TEXT = ("SequenceClassification", "NextSentencePrediction", "MultipleChoice")  # heads that answer of whole texts

# Figures by measurement, of the pruned and of the dense model.
Figures = dict[str, dict[str, float]]


def evaluate_encoder(
    model: Any,
    dense: Any,
    *,
    text: Any = None,
    squad: Path | None = None,
    mrpc: Path | None = None,
    questions: int | None = None,
    texts: int = TEXTS,
) -> Figures:
    """Figures of a sentence encoder and of the dense model that it was pruned from.

    Args:
        model, dense: a folder, a name on the Hub, or a `SentenceTransformer`.
        text: held-out text, as `load_documents` takes it; its sentences are embedded.
        squad: a file in SQuAD's layout, such as dev-v1.1.json.
        mrpc: the folder with MRPC's dev.tsv.
        questions: of SQuAD, at most; None: all.
        texts: sentences of the text, at most.

    Returns:
        `text`: see `compare_embeddings`. `squad` and `mrpc`: the figures of the model, under `dense ...` those of the
        dense one, and under `stored ...` those of the model's questions against the dense model's paragraphs.

    Raises:
        EncoderError: one of the models is no sentence encoder.
        EvaluationDataError, TextSourceError: the data cannot be used.
    """
    held_out = HeldOut.read(text, squad, mrpc, questions=questions, texts=texts)
    own, other = (SentenceEncoder.open(one).source for one in (model, dense))
    ours, theirs = (Embedded.by(encoder, held_out) for encoder in (own, other))
    return compare_encoders(ours, theirs, held_out, other.similarity)


class HeldOut(NamedTuple):
    """What encoders are compared on; None where nothing of the kind is."""

    sentences: list[str] | None
    asked: tuple[list[str], list[str], list[int]] | None
    pairs: tuple[list[str], list[str], list[int]] | None

    @classmethod
    def read(
        cls, text: Any, squad: Path | None, mrpc: Path | None, *, questions: int | None = None, texts: int = TEXTS
    ) -> HeldOut:
        """For arguments and errors see `evaluate_encoder`."""
        return cls(
            None if text is None else read_sentences(text, texts),
            None if squad is None else read_questions(squad, questions),
            None if mrpc is None else read_paraphrases(mrpc),
        )


class Embedded(NamedTuple):
    """What encoders are compared on, as one of them embeds it: (texts, width) each; None where there is nothing."""

    sentences: Tensor | None
    asked: tuple[Tensor, Tensor] | None  # questions and paragraphs
    pairs: tuple[Tensor, Tensor] | None

    @classmethod
    def by(cls, encoder: Any, held_out: HeldOut) -> Embedded:
        """By a `SentenceTransformer`."""
        encode, (sentences, asked, pairs) = partial(_embed, encoder.encode), held_out
        apart = (encoder.encode_query, encoder.encode_document)
        return cls(
            None if sentences is None else encode(sentences),
            None if asked is None else (_embed(apart[0], asked[0]), _embed(apart[1], asked[1])),
            None if pairs is None else (encode(pairs[0]), encode(pairs[1])),
        )


def compare_encoders(own: Embedded, dense: Embedded, held_out: HeldOut, similarity: Similarity) -> Figures:
    """The figures of `evaluate_encoder`, of what two encoders make of the same; `similarity` is the dense one's."""
    figures: Figures = {}
    if own.sentences is not None and dense.sentences is not None:
        figures["text"] = compare_embeddings(own.sentences, dense.sentences, similarity)
        figures["text"]["texts"] = len(own.sentences)
    if own.asked is not None and dense.asked is not None and held_out.asked is not None:
        wanted, ranked = held_out.asked[2], partial(rank_paragraphs, similarity=similarity)
        figures["squad"] = {**ranked(*own.asked, wanted), **_named("dense", ranked(*dense.asked, wanted))}
        (questions, paragraphs), (_, stored) = own.asked, dense.asked
        if paragraphs.shape == stored.shape:
            figures["squad"] |= _named("stored", ranked(questions, stored, wanted))
        figures["squad"] |= {"questions": len(questions), "paragraphs": len(paragraphs)}
    if own.pairs is not None and dense.pairs is not None and held_out.pairs is not None:
        labels = held_out.pairs[2]
        figures["mrpc"] = {
            "average precision": average_precision(*own.pairs, labels, similarity),
            "dense average precision": average_precision(*dense.pairs, labels, similarity),
            "pairs": len(labels),
        }
    return figures


def evaluate_agreement(model: str, dense: str, text: Any, *, texts: int = TEXTS, seed: int = 0) -> Figures:
    """How often a classifier, tagger, question answerer or reranker says what its dense model says, under `text`.

    Args:
        model, dense: folders or names on the Hub.
        text: unlabelled, as `load_documents` takes it; cut into spans, or into pairs for models that read two texts.

    Raises:
        SchuBertError: a model or the text cannot be opened, or the models have other heads.
    """
    documents = load_documents(text)
    with opening(model):
        own = load(model, dtype=torch.float32)
    # Many a BERT has both pretraining heads and names one; what was pruned from it has and names both.
    open_dense = load_for_pretraining if head_of(own) == "PreTraining" else load
    with opening(dense):
        whole = open_dense(dense, dtype=torch.float32)
    tokenizer = load_tokenizer(dense)
    some = unlabelled_examples(dense, whole, tokenizer, documents, texts, seed=seed)
    same, reads = some, tokenizer
    if own.config.vocab_size != whole.config.vocab_size:
        if (head := head_of(whole)) not in BY_TEXT:
            raise EvaluationDataError(
                f"`{model}` has {own.config.vocab_size:,} words and `{dense}` {whole.config.vocab_size:,}, and what a "
                f"{head} model says, it says of words. Trim the dense model alike (`schubert trim`), and give that."
            )
        reads = load_tokenizer(model)
        same = [_retokenized(example, tokenizer, reads, own.config.max_position_embeddings) for example in some]
    batches = [
        DataLoader(examples, BATCH, collate_fn=PaddingCollator(used))
        for examples, used in ((same, reads), (some, tokenizer))
    ]
    figures = agreement(own, whole, zip(*batches, strict=True))
    return {"text": {**figures, "texts": len(some)}}


def _retokenized(
    example: dict[str, Any], dense: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase, longest: int
) -> dict[str, Any]:
    """An example of one tokenizer, of one or two texts or choices, as another one reads it, of `longest` at most."""
    ids = example["input_ids"]
    if isinstance(ids[0], Sequence):
        choices = [_retokenized({"input_ids": choice}, dense, own, longest) for choice in ids]
        return {name: [choice[name] for choice in choices] for name in choices[0]}
    special = set(dense.all_special_ids) - {dense.unk_token_id}
    runs = [list(run) for between, run in groupby(ids, key=special.__contains__) if not between]
    return {**own(*map(dense.decode, runs[:2]), truncation="longest_first", max_length=longest)}


def read_sentences(text: Any, number: int) -> list[str]:
    """At most so many different sentences, spread evenly over the text.

    Raises:
        EvaluationDataError: there are fewer than three.
    """
    documents = load_documents(text)
    every = [sentence for document in documents["text"] for sentence in split_sentences(document)]
    sentences = list(dict.fromkeys(one for one in every if len(one.split()) >= WORDS))
    if len(sentences) < FEWEST:
        raise EvaluationDataError(
            f"`text` has {len(sentences)} sentences of {WORDS} words or more; {FEWEST} are the fewest. Give more text."
        )
    return [sentences[place] for place in evenly(len(sentences), number)]


def _embed(encode: Callable[..., Any], texts: Sequence[str]) -> Tensor:
    """Embeddings, (texts, width), on the CPU, in single precision."""
    found: Tensor = encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
    return found.float().cpu()


def _named(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{prefix} {name}": value for name, value in figures.items()}
