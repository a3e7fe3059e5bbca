"""A job that needs no labels: any BERT, with any head or none, matches its dense self on text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.columns import load_pairs, split_rows, tokenize_pairs
from ..data.padding import PaddingCollator
from ..encoders.cross_encoder import CrossEncoder
from ..encoders.examples import MAX_LENGTH, example_makers
from ..encoders.kinds import CROSS, SENTENCE, EncoderError, kind_of
from ..encoders.packages import packager
from ..encoders.sentence_encoder import SentenceEncoder
from ..evaluation.loading import load_as_saved, tokenizer_of
from ..pruning.config import PruningConfig
from ..training.outputs import Outputs
from ..training.reading import head_of
from .arguments import PruneArguments, SettingError
from .job import Job, describe_texts, make_examples


def open_encoder(model: Any, *, plain: bool = False) -> SentenceEncoder | CrossEncoder | None:
    """A model of sentence-transformers, taken apart; None for any other model.

    Args:
        plain: take a checkpoint of another kind, whose modules would be lost, as a plain model.

    Raises:
        EncoderError: it is one that cannot be opened or pruned.
        SettingError: it is no model at all.
    """
    kind = kind_of(model)
    if kind not in (None, SENTENCE, CROSS) and not (plain and isinstance(model, str)):
        name = f"`{model}`" if isinstance(model, str) else "`model`"
        raise EncoderError(
            f"{name} is a {kind} of sentence-transformers. Allowed are {SENTENCE} and {CROSS}. To take the "
            "transformer inside it as a plain model, give a folder with it alone, or prune this one with "
            '`objective="outputs"`.'
        )
    if kind is None and not isinstance(model, str | PreTrainedModel):
        raise SettingError(
            f"`model` is a {type(model).__name__}. Give a folder, a name on the Hub, a model of transformers, or a "
            "`SentenceTransformer` or `CrossEncoder`."
        )
    return SentenceEncoder.open(model) if kind == SENTENCE else CrossEncoder.open(model) if kind == CROSS else None


def outputs_job(
    arguments: PruneArguments,
    model: str | PreTrainedModel,
    encoder: SentenceEncoder | CrossEncoder | None,
    config: PruningConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    root: Path | None,
) -> Job:
    """A model as its checkpoint's class names it, on text, to match its own outputs.

    Args:
        encoder: the model as a sentence encoder, which pools token states to embeddings; None: it is none.

    Raises:
        SchuBertError: the model's head is not known, or model and text cannot be opened.
    """
    _check_own_space(arguments.own_space, encoder)
    loaded = encoder.model if encoder is not None else load_as_saved(model) if isinstance(model, str) else model
    head = head_of(loaded)
    if tokenizer is None:
        tokenizer = tokenizer_of(model) if encoder is None else encoder.tokenizer
    longest = loaded.config.max_position_embeddings if encoder is None else encoder.max_length
    max_length = arguments.max_length or min(MAX_LENGTH, longest)
    form = {"tokenizer": tokenizer, "max_length": max_length, "seed": config.seed}
    if arguments.columns:
        train, held_out = _pairs_of_columns(arguments, head, config, partial(_tokenize, tokenizer, max_length))
    else:
        prompts = tuple(dict.fromkeys(encoder.prompts.values())) if encoder is not None else ()
        pairs = arguments.pairs or isinstance(encoder, CrossEncoder)
        makers = example_makers(loaded, pairs=pairs, prompts=prompts)
        train, held_out = make_examples(arguments, config, makers, **form)
    collator, own_space = PaddingCollator(tokenizer), arguments.own_space
    return Job(
        model=loaded,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        objective=Outputs() if encoder is None else Outputs(embed=encoder.embed, embeds_ids=True),
        collator=collator,
        package=None if encoder is None else packager(encoder, train, held_out, collator, own_space=own_space),
        max_length=max_length,
        **describe_texts(arguments, root),
    )


def _check_own_space(own_space: bool, encoder: SentenceEncoder | CrossEncoder | None) -> None:
    if own_space and not isinstance(encoder, SentenceEncoder):
        raise SettingError("`own_space` is for sentence encoders; this model is none. Leave it out.")
    if own_space and isinstance(encoder, SentenceEncoder) and encoder.own_width:
        raise SettingError(
            "`own_space` is for encoders whose embedding is what the pooling gives. This one has a module behind it "
            "that reads the dense width, and gives a width of its own. Leave `own_space` out."
        )


def _tokenize(tokenizer: PreTrainedTokenizerBase, max_length: int, pairs: Dataset) -> Dataset:
    return tokenize_pairs(pairs, tokenizer, max_length=max_length)


def _pairs_of_columns(
    arguments: PruneArguments, head: str, config: PruningConfig, make: Callable[[Dataset], Dataset]
) -> tuple[Dataset, Dataset]:
    if head == "MultipleChoice":
        raise SettingError("`pair_columns` is for models that read two texts; a multiple-choice model reads more.")
    columns = (arguments.columns[0], arguments.columns[1])
    rows = load_pairs(arguments.source, columns, config=arguments.dataset_config)
    text: Any = arguments.eval_text
    if text is not None:
        held_out = load_pairs(text, columns)
    else:
        rows, held_out = split_rows(rows, held_out=config.eval_examples, seed=config.seed)
    return make(rows), make(held_out)
