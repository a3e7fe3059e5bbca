"""The result of a pruning run: rounds with their sizes and losses, as plain values with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..run.provenance import machine, versions
from ..shape import Shape
from .config import PruningConfig
from .data import PruningData
from .plan import PruningPlan


@dataclass(frozen=True)
class RoundRecord:
    """One round of Algorithm 1.

    Attributes:
        number: 1 for the first.
        budget: the cut's limit, in the cost's unit.
        size_before, size: before and after the cut.
        before, after_cut, after_recovery: held-out losses and accuracies (see `training.loop.evaluate`).
        shape: the widths after the cut.
        alphas: smallest, mean and largest alpha by group, before selection.
        seconds: by phase.
        halved: phases that ran at half the learning rate, here or in an earlier round, after a loss was not finite.
    """

    number: int
    budget: float
    size_before: float
    size: float
    before: dict[str, float]
    after_cut: dict[str, float]
    after_recovery: dict[str, float]
    shape: Shape
    alphas: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    halved: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RoundRecord:
        shape = Shape(**{name: tuple(sizes) for name, sizes in value["shape"].items()})
        return cls(**{**value, "shape": shape})


@dataclass(frozen=True)
class PruningResult:
    """The smaller model and how it was made.

    Attributes:
        model: in evaluation mode, on the device where it was trained.
        source: the shape of the model that was given.
        rounds: one record each.
        plans: one per round, each in the numbering of the round before.
        unit: what the sizes count.
        output_dir: the model's folder; None if nothing was written.
        config: every setting of the run, as it was given.
        provenance: base model, text, versions, machine: what the model's page says of them.
        tokenizer: saved and published with the model.
        resolved: `config` with every default filled in, which is what the record has.
    """

    model: PreTrainedModel = field(repr=False)
    source: Shape
    rounds: tuple[RoundRecord, ...]
    plans: tuple[PruningPlan, ...]
    unit: str
    output_dir: Path | None
    config: PruningConfig = field(default_factory=PruningConfig)
    provenance: dict[str, Any] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)
    resolved: PruningConfig | None = field(default=None, repr=False)

    @property
    def source_size(self) -> float:
        return self.rounds[0].size_before

    @property
    def size(self) -> float:
        return self.rounds[-1].size

    @property
    def kept(self) -> float:
        """The fraction of the source's size that remains."""
        return self.size / self.source_size

    def to_json(self) -> dict[str, Any]:
        return {
            "config": asdict(self.resolved or self.config.resolve()),
            "provenance": self.provenance,
            "unit": self.unit,
            "source_size": self.source_size,
            "size": self.size,
            "source": asdict(self.source),
            "rounds": [record.to_json() for record in self.rounds],
        }

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Publishes the model with its page and tokenizer: see `schubert_hf.hub.publish` for more arguments.

        Raises:
            PublishError: nothing was published; the result is as it was.
        """
        # By name, since imports point one way: the hub knows of pruning.
        return import_module("schubert_hf.hub").publish(self, repo_id, **{"tokenizer": self.tokenizer, **kwargs})


def describe(data: PruningData, accelerator: Accelerator, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record says of text, processes, versions and machine; what was given takes precedence."""
    return {
        "examples": data.stream.length,
        "mlm_probability": getattr(data.collator, "mlm_probability", None),
        **given,
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "versions": versions(),
        "machine": machine(),
    }
