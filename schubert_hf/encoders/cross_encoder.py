"""A cross-encoder: a sequence classifier that reads two texts, as sentence-transformers saves and opens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..conversion import with_our_names
from . import carrying
from .kinds import CROSS, EncoderError, check_family, kind_of


@dataclass(frozen=True)
class CrossEncoder:
    """A `sentence_transformers.CrossEncoder`, taken apart.

    Attributes:
        model: the classifier.
        tokenizer: with the cross-encoder's own settings.
        max_length: word pieces per pair.
        source: the object of sentence-transformers, with its activation and prompts.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    source: Any
    prompts: dict[str, str] = field(default_factory=dict)
    embed: None = None  # its outputs are its logits

    @classmethod
    def open(cls, given: Any) -> CrossEncoder:
        """Opens a folder, a name on the Hub, or a `CrossEncoder`, which is left unchanged.

        Raises:
            EncoderError: it is none, or is no BERT with a classifier's head.
        """
        if kind_of(given) != CROSS:
            raise EncoderError(f"`{given if isinstance(given, str) else type(given).__name__}` is no cross-encoder.")
        source = carrying.open_library(CROSS, given)
        name = f"`{given}`" if isinstance(given, str) else "The `CrossEncoder`"
        model = source[0].model
        check_family(name, model.config.model_type)
        if len(source) != 1 or not type(model).__name__.endswith("ForSequenceClassification"):
            raise EncoderError(
                f"{name} is a {type(model).__name__} with {len(source)} modules. Allowed is a single BERT with a "
                "classifier's head."
            )
        model = source[0].model = with_our_names(model)
        if model.config.num_labels > 1 and type(source.activation_fn).__name__ == "Sigmoid":
            # Each label's score counts by itself, which a softmax over the labels would not see.
            model.config.problem_type = "multi_label_classification"
        longest = model.config.max_position_embeddings
        return cls(model, source.tokenizer, min(source.max_seq_length or longest, longest), source)

    def with_model(self, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase | None = None) -> Any:
        """A `CrossEncoder` of sentence-transformers with another model, or tokenizer, and the same settings."""
        return carrying.carried(self.source, model, [], tokenizer).eval()

    def save(self, folder: str | Path, model: PreTrainedModel) -> None:
        """Writes `with_model(model)` as a folder that `CrossEncoder` opens, also without this package."""
        carrying.save(self.with_model(model), Path(folder))
