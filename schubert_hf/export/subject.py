"""What is exported: a checkpoint as one function from named tensors to named tensors.

The names are those that clients look for, so that an export can be dropped into sentence-transformers, transformers.js
and text-embeddings-inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..conversion import ConversionError, convert_bert
from ..encoders.kinds import SENTENCE, kind_of
from ..encoders.sentence_encoder import POOLED, SentenceEncoder
from ..evaluation.loading import load_as_saved, load_tokenizer
from ..modeling_schubert import SchuBertPreTrainedModel
from ..training.reading import head_of
from .errors import ExportError

STATES = "last_hidden_state"
# transformers.js reads `logits` from every masked-LM model, so that one export serves both pretraining heads.
CLIENTS_NAMES = {"prediction_logits": "logits"}


class Function(nn.Module):
    """A model whose inputs and outputs are tensors by name, in eval mode."""

    def __init__(
        self, model: PreTrainedModel, encoder: SentenceEncoder | None = None, *, pooled: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.states_only = encoder is not None and not pooled
        self.behind = nn.ModuleList(list(encoder.source)[1:]) if encoder is not None and pooled else None
        self.eval().requires_grad_(False)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs of shape (batch, seq), or (batch, choices, seq), to every output that the model gives for them."""
        found = self.model(**inputs)
        if self.behind is not None:
            # The names that sentence-transformers' own exports have.
            features = {"token_embeddings": found[STATES], "attention_mask": inputs["attention_mask"]}
            for module in self.behind:
                features = module(features)
            return {"token_embeddings": found[STATES], POOLED: features[POOLED]}
        if self.states_only:
            return {STATES: found[STATES]}
        return {CLIENTS_NAMES.get(name, name): value for name, value in found.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Subject:
    """A checkpoint, opened to be exported.

    Attributes:
        folder: where it was opened.
        function: what is traced, in float32 on the CPU.
        head: of the model, as `head_of` names it.
        inputs: names of its inputs, in the tokenizer's order.
        tokenizer: None where the folder holds none.
        sentence_encoder: that the model belongs to, if any.
    """

    folder: Path
    function: Function
    head: str
    inputs: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase | None = None
    sentence_encoder: SentenceEncoder | None = None

    @classmethod
    def open(cls, folder: Path, *, pooled: bool = False) -> Subject:
        """Opens a folder.

        Args:
            pooled: put the pooling of a sentence encoder, and what stands behind it, into the function.

        Raises:
            ExportError: it is no folder; or `pooled`, and it is no sentence encoder or one that leaves its prompt out
                of the pooling.
            SchuBertError: it holds no model, or one that is none of ours.
        """
        if not folder.is_dir():
            raise ExportError(
                f"`{folder}` is no folder. Give the folder of a saved model; "
                "`hf download NAME --local-dir FOLDER` fetches one from the Hub."
            )
        encoder = SentenceEncoder.open(str(folder)) if kind_of(str(folder)) == SENTENCE else None
        if pooled:
            _check_pooling(folder, encoder)
        model: Any = load_as_saved(folder) if encoder is None else encoder.model
        if not isinstance(model, SchuBertPreTrainedModel):
            model = convert_bert(model)
        tokenizer = _tokenizer(folder, model) if encoder is None else encoder.tokenizer
        function = Function(model, encoder, pooled=pooled)
        return cls(folder, function, head_of(model), _inputs(model, tokenizer), tokenizer, encoder)

    @property
    def config(self) -> Any:
        """The model's."""
        return self.function.model.config

    @property
    def pooling(self) -> str | None:
        """The pooling, "mean" or "cls", where it alone makes the sentence embedding, but for its normalisation."""
        if self.sentence_encoder is None:
            return None
        _, pooling, *behind = self.sentence_encoder.source
        simple = pooling.pooling_mode in ("mean", "cls") and pooling.include_prompt
        return pooling.pooling_mode if simple and {type(one).__name__ for one in behind} <= {"Normalize"} else None

    @property
    def longest(self) -> int:
        """Tokens that the model has positions for."""
        return int(self.config.max_position_embeddings)


def _inputs(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
    names = ["input_ids", "attention_mask"]
    segments = model.config.type_vocab_size > 1
    if segments and (tokenizer is None or "token_type_ids" in tokenizer.model_input_names):
        names.append("token_type_ids")
    return tuple(names)


def _tokenizer(folder: Path, model: Any) -> PreTrainedTokenizerBase | None:
    """An export needs none, save for int8."""
    try:
        return load_tokenizer(folder, model.config)
    except ConversionError:
        return None


def _check_pooling(folder: Path, encoder: SentenceEncoder | None) -> None:
    if encoder is None:
        raise ExportError(f"`{folder}` is no sentence encoder, so it has no pooling. Leave `--pooled` out.")
    if not getattr(encoder.source[1], "include_prompt", True):
        raise ExportError(
            f"`{folder}` leaves its prompt out of the pooling, for which an export has no input. Leave `--pooled` out."
        )
