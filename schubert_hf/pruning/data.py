"""Data for a pruning run, looked at before any work: what would fail after an hour of training fails at once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_schubert import SchuBertConfig
from ..data.stream import Batch, Collator, ExampleStream, MaskingCollator, StreamError, for_stream
from ..data.streaming import StreamedPairs
from ..errors import SchuBertError
from ..training.objective import Objective, ObjectiveError

LOOKED_AT = 64  # examples; enough to show what kind of data it is


class PruningDataError(SchuBertError):
    """Data that does not fit the model: other features, longer texts, another vocabulary."""


@dataclass(frozen=True)
class PruningData:
    """Training and held-out examples, each with what makes batches of them.

    Attributes:
        stream: of training examples; addressed by number, or read in order.
        collator: makes batches of them.
        eval_stream, eval_collator: the same for held-out ones.
        sample: the first training examples, as one batch.
    """

    stream: Any
    collator: Collator
    eval_stream: ExampleStream
    eval_collator: Collator
    sample: Batch

    def go_on(self, states: list[dict[str, Any]] | None) -> None:
        """Moves a stream that is read in order to `states`; one that is addressed by number has none."""
        if states is not None:
            self.stream.load_state(states)

    def state(self) -> dict[str, Any] | None:
        """Where this process is in a stream that is read in order; None for one that is addressed by number."""
        return None if isinstance(self.stream, ExampleStream) else self.stream.state()

    def state_everywhere(self, state: dict[str, Any] | None) -> list[dict[str, Any]] | None:
        """The states of all processes, by rank; None where the stream is addressed by number."""
        return None if state is None else gather_object([state])


def open_data(
    train_dataset: Any,
    eval_dataset: Any,
    collator: Collator | None,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    objective: Objective,
    seed: int,
    accelerator: Accelerator | None = None,
) -> PruningData:
    """Streams of the two sets, after a look at their first examples.

    Args:
        train_dataset: examples by number, or a stream, of which every process reads its share.
        eval_dataset: held-out examples by number.
        collator: makes batches; None: dynamic masking with `tokenizer`.
        tokenizer: needed without a collator; the model must have embeddings for its vocabulary, and the collator's.
        objective: with the model, decides what a batch must hold.
        seed: decides order and masks.
        accelerator: of a run on several processes, each of which reads its share of a stream.

    Raises:
        PruningDataError: the data does not fit the model.
    """
    if collator is None:
        if tokenizer is None:
            raise PruningDataError("Give `data_collator`, or `tokenizer` for dynamic masking with it.")
        collator = MaskingCollator(tokenizer, seed=seed)
    for used in (tokenizer, getattr(collator, "tokenizer", None)):
        if used is not None:
            _check_vocabulary(used, objective.model)
    eval_collator = collator
    if isinstance(collator, MaskingCollator):  # other masks than in training, should the examples be the same
        eval_collator = copy.copy(collator)
        eval_collator.seed = collator.seed + 1
    stream = _open_stream("train_dataset", train_dataset, seed=seed)
    eval_stream = _open_stream("eval_dataset", eval_dataset, shuffle=False)
    sample = _check_examples("train_dataset", stream, collator, objective)
    _check_examples("eval_dataset", eval_stream, eval_collator, objective)
    if isinstance(stream, StreamedPairs):  # every process has checked the same examples, and trains on its own
        rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        stream = stream.for_process(rank, processes)
    return PruningData(stream, collator, eval_stream, eval_collator, sample)


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raises `PruningDataError` where the tokenizer knows word pieces that the model has no embedding for."""
    if len(tokenizer) > model.config.vocab_size:
        raise PruningDataError(
            f"`tokenizer` has {len(tokenizer)} word pieces, the model {model.config.vocab_size} embeddings. "
            "Give the tokenizer that the model was trained with."
        )


def _open_stream(name: str, dataset: Any, **options: Any) -> Any:
    if isinstance(dataset, StreamedPairs):
        return dataset
    try:
        return ExampleStream(dataset, **options)
    except StreamError as error:
        raise PruningDataError(f"`{name}`: {error}") from error
    except TypeError as error:
        raise PruningDataError(
            f"`{name}` is a {type(dataset).__name__}: {error}. Give a list or a `datasets.Dataset`, whose examples "
            "have numbers, or `data.streaming.StreamedPairs`."
        ) from error


def _check_examples(name: str, stream: Any, collator: Collator, objective: Objective) -> Batch:
    """Makes one batch, and looks whether the objective and the model can take it."""
    positions = range(min(LOOKED_AT, stream.length or LOOKED_AT))
    try:
        examples = [stream[position] for position in positions]
        batch: Batch = for_stream(collator)(examples)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PruningDataError(
            f"The first examples of `{name}` do not make a batch: {type(error).__name__} {error}. "
            "Give examples as `schubert_hf.data.pairs.make_pairs` makes them, or a `data_collator` for yours."
        ) from error
    try:
        objective.count(batch)
    except (KeyError, ObjectiveError) as error:
        raise PruningDataError(f"`{name}` does not suit {type(objective.model).__name__}: {error}") from error
    _check_ids(name, batch, objective.model.config)
    return batch


def _check_ids(name: str, batch: dict[str, Tensor], config: SchuBertConfig) -> None:
    ids = batch.get("input_ids")
    if ids is not None and ids.shape[-1] > config.max_position_embeddings:
        raise PruningDataError(
            f"`{name}` has examples of {ids.shape[-1]} word pieces, but the model has positions for "
            f"{config.max_position_embeddings}. Give shorter examples, e.g. `make_pairs(..., max_length="
            f"{config.max_position_embeddings})`."
        )
    for key, size in (("input_ids", config.vocab_size), ("token_type_ids", config.type_vocab_size)):
        values = batch.get(key)
        if values is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
            raise PruningDataError(
                f"`{name}` has `{key}` from {int(values.min())} to {int(values.max())}, but the model has embeddings "
                f"for 0 to {size - 1}. Tokenize with the tokenizer that the model was trained with."
            )
