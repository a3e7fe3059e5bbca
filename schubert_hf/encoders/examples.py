"""Which unlabelled examples a model reads: spans of text, pairs of passages, or choices."""

from __future__ import annotations

from functools import partial

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.spans import Makers, choice_texts, make_spans, make_text_pairs, span_texts, unlabelled_pairs
from ..evaluation.evenly import evenly
from ..training.reading import head_of
from .kinds import CROSS, kind_of

MAX_LENGTH = 128
TWO_TEXTS = ("QuestionAnswering", "NextSentencePrediction", "PreTraining")


def example_makers(model: PreTrainedModel, *, pairs: bool = False, prompts: tuple[str, ...] = ()) -> Makers:
    """What makes examples of documents for a model, by its head.

    Args:
        pairs: whether it reads two texts, whatever its head says; as a cross-encoder does.
        prompts: of which each span begins with one.

    Raises:
        ObjectiveError: the head is not known.
    """
    head = head_of(model)
    if head == "MultipleChoice":
        return partial(make_text_pairs, choices=True), choice_texts
    if pairs or head in TWO_TEXTS or (head == "SequenceClassification" and model.config.num_labels == 1):
        return make_text_pairs, unlabelled_pairs
    return partial(make_spans, prompts=prompts), partial(span_texts, prompts=prompts)


def unlabelled_examples(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Dataset, most: int, seed: int = 0
) -> Dataset:
    """At most so many examples of the kind that a model reads.

    Args:
        name: folder or name on the Hub of `model`.
        documents: see `load_documents`.
    """
    make, _ = example_makers(model, pairs=kind_of(name) == CROSS)
    length = min(MAX_LENGTH, model.config.max_position_embeddings)
    examples = make(documents, tokenizer, max_length=length, seed=seed)
    return examples.select(evenly(len(examples), most))
