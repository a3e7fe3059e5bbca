"""A sentence encoder: a BERT, and the modules of sentence-transformers that make one vector of its token states.

These modules themselves are run, so every pooling is exactly theirs, and differentiable.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..conversion import with_our_names
from ..data.frame import Frame
from . import carrying
from .kinds import SENTENCE, EncoderError, check_checkpoint, check_family, check_modules, is_sentence_encoder

POOLED = "sentence_embedding"  # what the modules behind the transformer read and write
DENSE_WIDTH = "dense_width"  # the module's name; with a number where an encoder that is pruned again has one
# Weight (dense pooled width, own pooled width) and bias of the map that leads back to the dense model's width.
Map = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SentenceEncoder:
    """A `SentenceTransformer`, taken apart.

    Attributes:
        model: the BERT or SchuBERT whose token states are pooled.
        tokenizer: with the encoder's own settings.
        max_length: word pieces per text; longer ones are cut.
        prompts: name -> what a text may begin with.
        source: the `SentenceTransformer`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    prompts: dict[str, str]
    source: Any

    @classmethod
    def open(cls, given: Any) -> SentenceEncoder:
        """Opens a folder, a name on the Hub, or a `SentenceTransformer`, which is left unchanged.

        Raises:
            EncoderError: it is none, or has modules that are not known or code of its own, or is no BERT.
        """
        if not is_sentence_encoder(given):
            raise EncoderError(
                f"`{given if isinstance(given, str) else type(given).__name__}` is no sentence encoder. Give a "
                "`SentenceTransformer`, or a folder or name on the Hub with a modules.json."
            )
        if isinstance(given, str):
            check_checkpoint(given)
        source = carrying.open_library(SENTENCE, given)
        name = f"`{given}`" if isinstance(given, str) else "The `SentenceTransformer`"
        check_modules(name, [f"{type(module).__module__}.{type(module).__name__}" for module in source])
        transformer, _, *behind = source
        for module in behind:
            if getattr(module, "module_input_name", POOLED) != POOLED:
                raise EncoderError(f"{name} has a {type(module).__name__} that does not read the pooled vector.")
        check_family(name, transformer.model.config.model_type)
        model = transformer.model = with_our_names(transformer.model)
        longest = source.max_seq_length or model.config.max_position_embeddings
        prompts = {key: text for key, text in source.prompts.items() if text is not None}
        return cls(model, source.tokenizer, min(longest, model.config.max_position_embeddings), prompts, source)

    @property
    def own_width(self) -> bool:
        """Whether a module behind the pooling needs the pooled vector's width, whatever the model's own is."""
        return any(type(module).__name__ in ("Dense", "LayerNorm") for module in list(self.source)[2:])

    @cached_property
    def left_out(self) -> list[list[int]]:
        """The prompts, with what stands before a text, that the pooling leaves out: word pieces, the longest first."""
        if getattr(self.source[1], "include_prompt", True):
            return []
        start, prompts = Frame.of(self.tokenizer).start, [text for text in self.prompts.values() if text]
        found = [[*start, *self.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in prompts]
        return sorted(found, key=len, reverse=True)

    def pool(self, states: Tensor, attention_mask: Tensor, input_ids: Tensor | None = None) -> Tensor:
        """Token states (batch, seq, h) and their mask (batch, seq) to what the pooling alone gives.

        Args:
            input_ids: (batch, seq), by which prompts are known that the pooling leaves out. None: no text has one.
        """
        if input_ids is None or not self.left_out:
            return self._pool(states, attention_mask, 0)
        starts, rows = self.left_out, input_ids.tolist()
        lengths = [next((len(ids) for ids in starts if row[: len(ids)] == ids), 0) for row in rows]
        # The module takes one length for all rows.
        groups = {length: [row for row, own in enumerate(lengths) if own == length] for length in set(lengths)}
        parts = [self._pool(states[group], attention_mask[group], length) for length, group in groups.items()]
        return torch.cat(parts)[torch.tensor([row for group in groups.values() for row in group]).argsort()]

    def _pool(self, states: Tensor, attention_mask: Tensor, prompt_length: int) -> Tensor:
        features = {"token_embeddings": states, "attention_mask": attention_mask, "prompt_length": prompt_length}
        pooled: Tensor = self.source[1](features)[POOLED]
        return pooled

    def finish(self, pooled: Tensor) -> Tensor:
        """What the pooling gave, (batch, pooled width), through the modules behind it, to (batch, width)."""
        features = {POOLED: pooled}
        for module in list(self.source)[2:]:
            features = module.to(pooled.device).eval().requires_grad_(False)(features)
        return features[POOLED]

    def embed(self, states: Tensor, attention_mask: Tensor, input_ids: Tensor | None = None) -> Tensor:
        """Token states (batch, seq, h) and the rest of `pool` to embeddings (batch, width), differentiably."""
        return self.finish(self.pool(states, attention_mask, input_ids))

    def with_model(
        self,
        model: PreTrainedModel,
        dense_map: Map | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Any:
        """A `SentenceTransformer` with another model, and the same modules, prompts, similarity and lengths.

        Args:
            model: a BERT or SchuBERT without a head.
            dense_map: for a narrower model; put behind the pooling as a `Dense`. None: the vector stays as it is.
            tokenizer: of the other model, where its vocabulary is another.
        """
        from sentence_transformers.sentence_transformer.modules import Dense

        (_, (place, pooling), *others) = self.source._modules.items()
        settings = {**pooling.get_config_dict(), "embedding_dimension": model.config.hidden_size}
        modules = [(place, type(pooling)(**settings))]
        behind = [(name, copy.deepcopy(module).requires_grad_(True)) for name, module in others]  # `finish` froze them
        if dense_map is not None:
            weight, bias = (part.detach().to("cpu", torch.float32) for part in dense_map)
            made = Dense(
                weight.shape[1], weight.shape[0], activation_function=None, init_weight=weight, init_bias=bias
            )
            taken = DENSE_WIDTH in self.source._modules
            modules.append((f"{DENSE_WIDTH}_{len(self.source)}" if taken else DENSE_WIDTH, made))
        return carrying.carried(self.source, model, [*modules, *behind], tokenizer).eval()

    def save(self, folder: str | Path, model: PreTrainedModel, dense_map: Map | None = None) -> None:
        """Writes `with_model(model, dense_map)` as a folder that `SentenceTransformer` opens.

        Without this package that takes `trust_remote_code=True`; the two files that it runs are in the folder.
        """
        carrying.save(self.with_model(model, dense_map), Path(folder))
