"""What a job of the pruner is, and what its page says of the texts and the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.spans import Makers
from ..data.stream import Collator
from ..data.streaming import StreamedPairs
from ..data.text import held_out_documents, load_documents, not_held_out, split_documents, stream_documents
from ..pruning.config import PruningConfig
from ..pruning.result import Package, PruningResult
from ..run.provenance import base_model, source
from ..training.objective import Objective
from .arguments import PruneArguments

KEPT_APART = {"name": "documents kept apart from the training text"}


class Job(NamedTuple):
    """What is pruned, on which examples, by which loss; and what its page says of them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset | StreamedPairs
    held_out: Dataset
    objective: Callable[[PreTrainedModel], Objective]
    collator: Collator | None  # None: the objective's own
    max_length: int
    train_data: dict[str, Any]
    eval_data: dict[str, Any]
    package: Callable[[PruningResult], Package] | None = None  # what results are handed out as; None: as checkpoints


def describe_base(model: Any, root: Path | None = None) -> dict[str, Any]:
    """What a page says of the model that was pruned."""
    if isinstance(model, str):
        return base_model(model, root=root)
    if not isinstance(model, PreTrainedModel):  # a model of sentence-transformers
        model = model[0].model
    name = str(model.name_or_path)
    if not name or (not Path(name).exists() and (Path(name).is_absolute() or name.count("/") > 1)):
        return {"name": Path(name).name or type(model).__name__, "hub": False}
    # Its weights need not be those of the checkpoint any more.
    return {field: value for field, value in base_model(name, root=root).items() if field != "sha256"}


def describe_texts(arguments: PruneArguments, root: Path | None) -> dict[str, Any]:
    """`train_data` and `eval_data` of a job on text."""
    named = {"config": arguments.dataset_config} if arguments.dataset_config else {}
    held_out = KEPT_APART if arguments.eval_text is None else describe_text(arguments.eval_text, root)
    return {"train_data": {**describe_text(arguments.source, root), **named}, "eval_data": held_out}


def make_examples(
    arguments: PruneArguments,
    config: PruningConfig,
    makers: Makers,
    **form: Any,
) -> tuple[Dataset | StreamedPairs, Dataset]:
    """Training and held-out examples of the text that the arguments name.

    Args:
        makers: from documents to examples, of a loaded text and of a stream.
        form: of the examples: `tokenizer`, `max_length` and `seed`.
    """
    make = partial(makers[0], **form)
    stream: Callable[..., StreamedPairs] = partial(StreamedPairs, make=makers[1], **form)
    if arguments.streaming:
        documents = stream_documents(arguments.source, config=arguments.dataset_config)
        if arguments.eval_text is not None:
            return stream(documents, wanted=None), make(load_documents(arguments.eval_text))
        return stream(documents, wanted=not_held_out), make(held_out_documents(documents, config.eval_examples))
    loaded = load_documents(arguments.source, config=arguments.dataset_config)
    if arguments.eval_text is not None:
        held_out = load_documents(arguments.eval_text)
    else:
        loaded, held_out = split_documents(loaded, held_out=config.eval_examples, seed=config.seed)
    return make(loaded), make(held_out)


def describe_text(text: Any, root: Path | None) -> dict[str, Any]:
    """What a page says of a text, however it was given."""
    if isinstance(text, str):
        return source(text, root=root)
    return {"name": f"{len(text):,} documents given in memory", "hub": False}
