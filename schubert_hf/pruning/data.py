"""Data for a pruning run, checked before any work: what would fail after an hour of training fails at once."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_schubert import SchuBertConfig
from ..data.padding import PaddingCollator
from ..data.stream import CHECKED, Batch, Collator, ExampleStream, MaskingCollator, StreamError, digest, for_stream
from ..data.streaming import StreamedPairs
from ..errors import SchuBertError
from ..run.memory import examples_in, take
from ..shape import Shape
from ..training.micro_batches import by_length
from ..training.objective import Objective, ObjectiveError, real_tokens
from .config import PruningConfig
from .methods import METHODS
from .precision import Reduce, summed

logger = logging.getLogger(__name__)
AnyBatch = TypeVar("AnyBatch", bound=Mapping[str, Tensor])
FEW = 64  # predictions, of the objective's first term: fewer say little about a whole model
TOKENS_PER_INPUT = 10  # of a projection: more gave no better refit (examples/benchmarks/RESULTS.md)


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
        digests: of the first training and held-out examples: tells another corpus of the same size.
    """

    stream: Any
    collator: Collator
    eval_stream: ExampleStream
    eval_collator: Collator
    sample: Batch
    digests: tuple[str, str]

    def resolve(self, config: PruningConfig, model: PreTrainedModel) -> PruningConfig:
        """The settings with `calibration_examples` filled in, from the widest system that a refit has to solve."""
        widest = widest_input(Shape.of(model.config))
        tokens = float(real_tokens(self.sample).sum(-1).float().mean())  # of an example
        enough = math.ceil(TOKENS_PER_INPUT * widest / tokens)
        given = config.calibration_examples
        if given is not None and given < enough / 2 and METHODS[config.method].calibrates:
            logger.warning(
                "`calibration_examples` is %d, about %d tokens for systems of %d unknowns: what is refit on so few "
                "does not carry over to other text. %d would do.",
                given,
                given * tokens,
                widest,
                enough,
            )
        return config if given is not None else replace(config, calibration_examples=enough)

    def calibration(
        self, accelerator: Accelerator, position: int, config: PruningConfig
    ) -> tuple[list[Batch], list[Batch]]:
        """The `calibration_examples` from a position of the training stream: the process's share, on its device.

        Returns:
            Batches to score and to fit on, and a fold to choose by: a quarter, at least one batch of all processes.
        """
        batches = list(self._calibration(accelerator, position, config))
        steps = config.calibration_size // config.batch_size
        fold = len(batches) // steps * max(1, steps // 4)
        return batches[:-fold], batches[-fold:]

    def _calibration(self, accelerator: Accelerator, position: int, config: PruningConfig) -> Iterator[Batch]:
        share = config.batch_size // accelerator.num_processes
        size = config.micro_batch_size or share
        collate = for_stream(self.collator)
        set_seed(config.seed)  # a collator of the user's may draw its masks from the global generators
        first = position + accelerator.process_index * share  # as in training: a stream may be read in order
        for start in range(first, first + config.calibration_size, config.batch_size):
            for begin in range(0, share, size):
                positions = range(start + begin, start + min(begin + size, share))
                yield send_to_device(collate([self.stream[position] for position in positions]), accelerator.device)


def widest_input(shape: Shape) -> int:
    """How many inputs the widest projection has: the unknowns of the largest system that a refit solves."""
    values = map(mul, shape.head_counts, shape.value_sizes)
    return int(max(*shape.hidden_sizes, *shape.filter_sizes, *values))


def sum_over_processes(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The sum of what the processes hold, on all of them; one process keeps its tensor on the device where it is."""
    if accelerator.num_processes == 1:  # the device may know less than the CPU: Apple's has no float64
        return tensor
    summed: Tensor = accelerator.reduce(tensor.to(accelerator.device), reduction="sum")
    return summed


def first_tokens(number: int, batches: Sequence[AnyBatch], reduce: Reduce | None = None) -> list[AnyBatch]:
    """The first examples that hold so many real tokens, over all processes; at least one.

    Of the last batch only as many are taken as that needs, evenly spread over it, on every process alike.
    """
    counts = torch.tensor([float(real_tokens(batch).sum()) for batch in batches])
    kept: list[AnyBatch] = []
    for batch, tokens in zip(batches, summed(counts, reduce).tolist(), strict=True):
        size = examples_in(batch)
        rows = min(size, math.ceil(size * number / tokens)) if tokens else size
        kept.append(batch if rows == size else take(batch, [row * size // rows for row in range(rows)]))
        if number <= tokens:
            break
        number -= tokens
    return kept


def first_predictions(
    number: int, batches: Sequence[AnyBatch], objective: Objective, reduce: Reduce | None = None
) -> list[AnyBatch]:
    """As `first_tokens`, but twice as many where they hold few predictions, such as one for each sequence."""
    used = first_tokens(number, batches, reduce)
    found = torch.tensor([float(sum(objective.count(dict(batch))[objective.terms[0]] for batch in used))])
    return used if float(summed(found, reduce)) >= FEW else first_tokens(2 * number, batches, reduce)


def split(tokens: int, batches: Iterable[Mapping[str, Tensor]], device: torch.device) -> list[Batch]:
    """The same examples in batches of so many tokens, padding among them, at least one example each.

    They are on `device`, where it is a CPU in the order of their lengths.
    """
    pieces = []
    for batch in by_length(batches, device):
        size = examples_in(batch)
        step = max(1, tokens * size // batch["input_ids"].numel())
        pieces += [take(batch, slice(start, start + step)) for start in range(0, size, step)]
    return pieces


def open_data(
    train_dataset: Any,
    eval_dataset: Any,
    collator: Collator | None,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    objective: Objective,
    seed: int,
    rank: int = 0,
    processes: int = 1,
) -> PruningData:
    """Streams of the two sets, whose first examples are checked.

    Args:
        train_dataset: examples by number, or a stream, of which every process reads its share.
        collator: makes batches; None: dynamic masking with `tokenizer`, or padding alone where nothing is predicted.
        tokenizer: the model must have embeddings for its vocabulary, and the collator's.
        objective: with the model, decides what a batch must hold.
        rank, processes: which share of a stream this process reads, and how many there are.

    Raises:
        PruningDataError: the data does not fit the model.
    """
    if collator is None:
        if tokenizer is None:
            raise PruningDataError("Give `data_collator`, or `tokenizer` to make batches with it.")
        collator = PaddingCollator(tokenizer) if objective.follows_dense else MaskingCollator(tokenizer, seed=seed)
    words = objective.model.config.vocab_size
    for used in (tokenizer, getattr(collator, "tokenizer", None)):
        if used is not None and len(used) > words:
            raise PruningDataError(
                f"`tokenizer` has {len(used)} word pieces, the model {words} embeddings. Give the tokenizer that the "
                "model was trained with."
            )
    eval_collator = collator
    if isinstance(collator, MaskingCollator):  # other masks than in training, should the examples be the same
        eval_collator = copy.copy(collator)
        eval_collator.seed = collator.seed + 1
    stream = _open_stream("train_dataset", train_dataset, seed=seed)
    eval_stream = _open_stream("eval_dataset", eval_dataset, shuffle=False)
    sample, train_digest = _check_examples("train_dataset", stream, collator, objective)
    _, eval_digest = _check_examples("eval_dataset", eval_stream, eval_collator, objective)
    if isinstance(stream, StreamedPairs):  # every process has checked the same examples, and trains on its own
        stream = stream.for_process(rank, processes)
    return PruningData(stream, collator, eval_stream, eval_collator, sample, (train_digest, eval_digest))


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


def _check_examples(name: str, stream: Any, collator: Collator, objective: Objective) -> tuple[Batch, str]:
    """A first batch, checked against objective and model, and the digest of its examples."""
    positions = range(min(CHECKED, stream.length or CHECKED))
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
    return batch, stream.digest() if isinstance(stream, ExampleStream) else digest(examples)


def _check_ids(name: str, batch: dict[str, Tensor], config: SchuBertConfig) -> None:
    ids, most = batch.get("input_ids"), config.max_position_embeddings
    if ids is not None and ids.shape[-1] > most:
        raise PruningDataError(
            f"`{name}` has examples of {ids.shape[-1]} word pieces, but the model has positions for {most}. Give "
            f"shorter ones: `max_length={most}` or less."
        )
    for key, size in (("input_ids", config.vocab_size), ("token_type_ids", config.type_vocab_size)):
        values = batch.get(key)
        if key == "token_type_ids" and size == 1:
            continue  # a model of one segment looks at none
        if values is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
            raise PruningDataError(
                f"`{name}` has `{key}` from {int(values.min())} to {int(values.max())}, but the model has embeddings "
                f"for 0 to {size - 1}. Tokenize with the tokenizer that the model was trained with."
            )
