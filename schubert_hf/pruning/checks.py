"""What a pruning run is given, checked before any work: each bad input is one clear error."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from ..auto import MODELS
from ..configuration_schubert import SchuBertConfig
from ..conversion import ConversionError, convert_bert
from ..run.processes import check_supported
from ..training.objective import Objective, ObjectiveError, PretrainingObjective
from .config import PruningConfigError
from .surgery import check_tensors

OBJECTIVES = {"SequenceClassification": "ClassificationObjective", "QuestionAnswering": "QuestionAnsweringObjective"}


def check_processes(accelerator: Accelerator, batch_size: int) -> None:
    """Raises `ProcessesError`, or `PruningConfigError` where the processes cannot share a batch equally."""
    check_supported(accelerator)
    if batch_size % accelerator.num_processes:
        raise PruningConfigError(
            f"`batch_size` is {batch_size} examples per step over {accelerator.num_processes} processes; give "
            "a multiple of the number of processes."
        )


def own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A SchuBERT with the weights of `model`, in at least single precision.

    Raises:
        ConversionError, UnknownTensorError: it is none that can be pruned.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConversionError("`model` is on the meta device, without weights. Load it with `from_pretrained`.")
    ours = model.config.model_type == SchuBertConfig.model_type
    copied = copy.deepcopy(model) if ours else convert_bert(model)
    name = type(copied).__name__
    if name not in {known.__name__ for known in MODELS.values()}:
        raise ConversionError(f"`{name}` is no class of SchuBERT's. Load a checkpoint with `schubert_hf.load`.")
    check_tensors(copied)
    return copied.to(torch.promote_types(copied.dtype, torch.float32))


def build_objective(make: Callable[[PreTrainedModel], Objective], model: PreTrainedModel) -> Objective:
    """What is minimised; raises `ObjectiveError` where the model has another head."""
    try:
        return make(model)
    except ObjectiveError as error:
        name = type(model).__name__
        head = name.partition("For")[2]
        if make is not PretrainingObjective or not head:
            raise
        task = OBJECTIVES.get(head)
        example = f", such as `schubert_hf.evaluation.objectives.{task}`," if task else ""
        raise ObjectiveError(
            f"`{name}` has no masked-language-model head, which is what is trained without an `objective`. Give "
            f"`Outputs()`, which needs no labels; or the objective of its task{example} and labelled examples."
        ) from error


def fingerprint(model: PreTrainedModel) -> int:
    """CRC-32 of a model's parameters: equal where two models hold the same weights, bit for bit."""
    value = 0
    for parameter in model.parameters():
        value = zlib.crc32(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), value)
    return value


def check_same_weights(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """Raises `RuntimeError` on every process unless all of them hold the same weights, bit for bit."""
    own = torch.tensor([fingerprint(model)], device=accelerator.device)
    everyone = accelerator.gather(own).tolist()
    if len(set(everyone)) > 1:
        raise RuntimeError(
            f"The processes hold different weights (fingerprints {everyone}), so they would prune different models. "
            "Load the same checkpoint in every process, and seed what is drawn: a new head differs otherwise."
        )
