"""Opens checkpoints of other families: transformers reads them as what they are, then they are converted."""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.utils import logging

from ..modeling_schubert import FINDING, TASK_MODULES, SchuBertLoadError
from .family import Family, Tensors

# Where and how weights are read; every other argument is for the SchuBERT that is made of them.
_READING = (
    *FINDING,
    *("variant", "dtype", "torch_dtype", "use_safetensors", "proxies", "local_dir"),
)


class Opener:
    """What the shipped classes ask of a family; see `SchuBertConfig.families`."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """See `Family.fields`."""
        return self.family.fields(given)

    def tensors(self, dense: PreTrainedModel) -> Tensors:
        """The state dict of a model of the family in memory, as SchuBERT's; it shares no tensor with the model.

        Raises:
            SchuBertLoadError: no SchuBERT is the counterpart of its class.
        """
        name = type(dense).__name__
        if self.family.our_class(name) is None:
            raise SchuBertLoadError(
                f"No SchuBERT class is the counterpart of {name!r}; allowed are classes that end in "
                f"{', '.join(self.family.heads)}. Give its base model: `model.base_model`."
            )
        copied = {key: tensor.detach().clone() for key, tensor in dense.state_dict().items()}
        return self.family.tensors(copied, name, dense.config)

    def read(
        self, ours: str, source: Any, content: dict[str, Any], given: dict[str, Any]
    ) -> tuple[PreTrainedModel, Tensors, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
            ours: name of the SchuBERT class that it is read for.
            source: a folder, or a name on the Hub.
            content: of its config.json.
            given: arguments of `from_pretrained`.

        Returns:
            The model as transformers opens it; as SchuBERT's tensors what was in the checkpoint, without what
            transformers added, and with what it left out; and those of the arguments that remain.
        """
        reading = {name: given[name] for name in _READING if name in given}
        rest = {name: value for name, value in given.items() if name not in _READING}
        config = CONFIG_MAPPING[content["model_type"]].from_dict(content)
        theirs = self.family.their_class(ours, config.model_type)
        if theirs is None:  # a head that the family has not: nothing of the checkpoint is lost in the nearest one
            nearest = "SchuBertForMaskedLM" if ours.endswith("ForPreTraining") else "SchuBertModel"
            theirs = self.family.their_class(nearest, config.model_type)
        assert theirs is not None
        level = logging.get_verbosity()
        logging.set_verbosity_error()  # what is missing is reported once, by the class that is made
        try:
            dense, loaded = getattr(transformers, theirs).from_pretrained(
                source, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **reading
            )
        finally:
            logging.set_verbosity(level)
        found = self._as_stored(dense, loaded)
        tensors = self.family.tensors(found, theirs, dense.config)
        known = (*TASK_MODULES, *(f"{module}." for module in self.family.left_out))
        for name in map(self.family.our_name, loaded["unexpected_keys"]):
            if not name.removeprefix("bert.").startswith(known) and not re.search(r"position_ids$", name):
                tensors.setdefault(name, torch.empty(0))  # so that it is reported as left over
        return dense, tensors, rest

    def _as_stored(self, dense: PreTrainedModel, loaded: dict[str, Any]) -> Tensors:
        missing, tied = set(loaded["missing_keys"]), dict(dense.all_tied_weights_keys)  # tensor -> what it is tied to
        fresh = {name for name in {*missing, *tied} if tied.get(name, name) in missing}
        found = {name: tensor for name, tensor in dense.state_dict().items() if name not in fresh}
        return {**found, **{name: torch.empty(shape) for name, shape, _ in loaded["mismatched_keys"]}}
