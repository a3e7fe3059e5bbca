"""What reads the stream behind the last layer: the pooler, the masked-LM head, and every other head.

The part of `anatomy` outside layers and embeddings; beside it, no other file names a submodule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from .anatomy import Place, Source, place

TURN = "turn"  # the buffer's name
NEXT_SENTENCE_OUTPUT = "seq_relationship_logits"  # as transformers calls it


class Reader(NamedTuple):
    """A linear map outside the layers that reads channels; `source` is what its input is."""

    name: str
    module: nn.Linear
    place: Place
    source: Source


def readers(model: PreTrainedModel) -> Iterator[Reader]:
    """Pooler, masked-LM transform, decoder, and every head: whatever reads channels behind the last layer."""
    has_pooler = getattr(model.base_model, "pooler", None) is not None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            where = place(name)
            if (source := where.row.reads) is not None:
                yield Reader(name, module, where, "stream" if source == "pooler" and not has_pooler else source)


def heads(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear maps that give a model's outputs: classifiers, and the decoder of the masked-LM head."""
    return [reader.module for reader in readers(model) if reader.place.row.part == "head"]


class MaskedLM(NamedTuple):
    """The masked-LM head: `module(states)` gives logits; decoder(norm(activation(transform(states)))).

    `turned`: between norm and decoder, what they give is turned, see `turn`.
    """

    module: nn.Module
    transform: nn.Linear
    activation: Callable[[Tensor], Tensor]
    norm: nn.LayerNorm
    decoder: nn.Linear
    bias: nn.Parameter
    turned: bool = False

    def decoded(self, states: Tensor) -> Tensor:
        """What the decoder reads of states (..., h): shape (..., e)."""
        module: Any = self.module
        read: Tensor = module.transform(states)
        return read

    def turn(self, matrix: Tensor) -> None:
        """Multiplies what the decoder reads by a matrix, (e, e); no checkpoint and no copy by shape has it.

        A model with turned word embeddings then gives the logits that it gave.
        """
        inner: Any = cast(Any, self.module).transform
        inner.register_buffer(TURN, matrix.to(self.transform.weight), persistent=False)
        inner.register_forward_hook(lambda module, _args, output: output @ getattr(module, TURN))


def masked_lm(model: PreTrainedModel) -> MaskedLM | None:
    """The masked-LM head of a model; None where it has none."""
    head: Any = getattr(getattr(model, "cls", None), "predictions", None)
    if head is None:
        return None
    inner = head.transform
    linears = inner.dense, inner.transform_act_fn, inner.LayerNorm, head.decoder
    return MaskedLM(head, *linears, head.bias, turned=hasattr(inner, TURN))


def next_sentence(model: PreTrainedModel) -> nn.Module | None:
    """The next-sentence head of a model, which reads the pooler's output; None where it has none."""
    head: nn.Module | None = getattr(getattr(model, "cls", None), "seq_relationship", None)
    return head
