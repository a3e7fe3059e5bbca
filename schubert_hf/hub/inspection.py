"""What a shape costs, part by part, and what it lacks against its base: for terminals, programs, pages, pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ..configuration_schubert import ARCHITECTURES, SchuBertConfig
from ..shape import DIMENSIONS, Shape

SEQUENCE = 128  # tokens of the one sequence that FLOPs are counted for


@dataclass(frozen=True)
class Parts:
    """A cost by part. `encoder` is `attention` plus `filters`."""

    embeddings: int
    attention: int
    filters: int
    pooler: int
    head: int

    @property
    def encoder(self) -> int:
        return self.attention + self.filters

    @property
    def total(self) -> int:
        return self.embeddings + self.encoder + self.pooler + self.head

    def to_json(self) -> dict[str, int]:
        names = ("embeddings", "encoder", "attention", "filters", "pooler", "head", "total")
        return {name: getattr(self, name) for name in names}


def parameter_parts(config: SchuBertConfig, architecture: str) -> Parts:
    """Parameters, tied ones once."""
    breakdown = config.parameter_breakdown(architecture)
    layers = {
        kind: sum(n for name, n in breakdown.items() if name.endswith(f".{kind}")) for kind in ("attention", "filters")
    }
    return Parts(
        breakdown["embeddings"], layers["attention"], layers["filters"], breakdown["pooler"], breakdown["head"]
    )


def flop_parts(config: SchuBertConfig, seq_len: int = SEQUENCE) -> Parts:
    """FLOPs of one sequence through encoder and pooler. Embeddings are look-ups; the task's head is not counted."""
    layers = config.num_hidden_layers
    total = config.flops(seq_len)
    without_heads = _with(config, head_counts=[0] * layers).flops(seq_len)
    without_filters = _with(config, filter_sizes=[0] * layers).flops(seq_len)
    attention, filters = total - without_heads, total - without_filters
    return Parts(0, attention, filters, total - attention - filters, 0)


def architecture_of(config: SchuBertConfig) -> str:
    """The SchuBERT class that a config names, or the base model."""
    names = [name for name in config.architectures or [] if name in ARCHITECTURES]
    return names[0] if names else "SchuBertModel"


@dataclass(frozen=True)
class Inspection:
    """A model's widths and costs, beside its base's where that is known.

    Attributes:
        name: as the user gave it.
        config: of the model.
        base: the shape it was cut from, or that it is compared with; None if unknown.
        base_name: what the base is called.
    """

    name: str
    config: SchuBertConfig
    base: Shape | None = None
    base_name: str | None = None

    @property
    def architecture(self) -> str:
        return architecture_of(self.config)

    @property
    def shape(self) -> Shape:
        return Shape.of(self.config)

    @property
    def base_config(self) -> SchuBertConfig | None:
        return None if self.base is None else _with(self.config, **self.base.lists())

    @property
    def parameters(self) -> Parts:
        return parameter_parts(self.config, self.architecture)

    @property
    def base_parameters(self) -> Parts | None:
        return None if self.base_config is None else parameter_parts(self.base_config, self.architecture)

    @property
    def flops(self) -> Parts:
        return flop_parts(self.config)

    @property
    def base_flops(self) -> Parts | None:
        return None if self.base_config is None else flop_parts(self.base_config)

    @property
    def pruned_dimensions(self) -> list[str]:
        """The letters of h, f, a, k, v in which some layer is narrower than the base's; l, where layers are missing.

        Which layers are missing is not known here: then a layer counts as narrower than all of the base.
        """
        if self.base is None:
            return []
        sizes = {letter: (getattr(self.base, name), getattr(self.shape, name)) for letter, name in DIMENSIONS.items()}
        if len(self.base.hidden_sizes) == len(self.shape.hidden_sizes):
            return [letter for letter, (base, own) in sizes.items() if base != own]
        return [letter for letter, (base, own) in sizes.items() if min(own) < min(base)] + ["l"]

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"name": self.name, "architecture": self.architecture}
        value |= _side(self.shape, self.parameters, self.flops)
        if self.base is not None and self.base_parameters is not None and self.base_flops is not None:
            value["base"] = {"name": self.base_name, **_side(self.base, self.base_parameters, self.base_flops)}
            value["removed"] = {
                "parameters": _fraction(self.parameters.total, self.base_parameters.total),
                "flops": _fraction(self.flops.total, self.base_flops.total),
                **{
                    name: _fraction(sum(getattr(self.shape, name)), sum(getattr(self.base, name)))
                    for name in DIMENSIONS.values()
                },
            }
        return value


def _side(shape: Shape, parameters: Parts, flops: Parts) -> dict[str, Any]:
    return {
        "shape": shape.lists(),
        "parameters": parameters.to_json(),
        "flops": {"sequence_length": SEQUENCE, **{name: n for name, n in flops.to_json().items() if n}},
    }


def _fraction(now: int, before: int) -> float:
    return round(1 - now / before, 4) if before else 0.0


def _with(config: SchuBertConfig, **lists: list[int]) -> SchuBertConfig:
    """A copy with other lists, scalars derived anew."""
    changed = copy.deepcopy(config)
    for name, widths in lists.items():
        setattr(changed, name, widths)
    return changed
