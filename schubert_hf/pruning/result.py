"""How far a pruning run has come and what it gave: rounds with their sizes and losses, in checkpoints and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..cost import format_size
from ..run.checkpoint import save_model, write_json
from ..run.output import MARKER, PRUNING_RECORD, check_output_folder, result_files
from ..run.progress import Clock, format_seconds
from ..run.session import Part
from ..shape import Shape
from ..shipping import opened_anywhere, ship
from .config import PruningConfig, PruningConfigError
from .plan import PruningPlan


@dataclass(frozen=True)
class RoundRecord:
    """One round of Algorithm 1.

    Attributes:
        number: 1 for the first.
        budget: the cut's limit, in the cost's unit.
        size_before, size: before and after the cut.
        before, after_cut, after_recovery: held-out losses and accuracies (see `training.evaluate`).
        shape: the widths after the cut.
        candidates: the plans that competed, see `search.Competition.tried`.
        alphas: smallest, mean and largest alpha by group, before selection.
        seconds: by phase.
        learning_rate: the recovery's peak, as it was given or found, or lowered since; None where nothing was trained.
        best_step: of the recovery, after which the weights are kept; 0: those right after the cut.
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
    candidates: list[dict[str, Any]] = field(default_factory=list)
    alphas: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    halved: list[str] = field(default_factory=list)
    learning_rate: float | None = None
    best_step: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RoundRecord:
        shape = Shape.from_json(value["shape"])
        return cls(**{**value, "shape": shape})


@dataclass
class Progress(Part):
    """The part of a run's session that is the pruner's own.

    Attributes:
        records: one per finished round.
        plans: one per round that has been cut.
        open: fields of the current round's record, as they become known; None between two.
        clock: of the current round. What is saved has the seconds until then, so that a resumed run adds its own.
    """

    records: list[RoundRecord] = field(default_factory=list)
    plans: list[PruningPlan] = field(default_factory=list)
    open: dict[str, Any] | None = None
    clock: Clock | None = None

    def state(self) -> dict[str, Any]:
        if self.open is not None and self.clock is not None:
            self.clock.lap("recovery" if "after_cut" in self.open else "selection")
        return {
            "rounds": [record.to_json() for record in self.records],
            "plans": [plan.to_json() for plan in self.plans],
            "open": self.open,
        }

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.records = [RoundRecord.from_json(record) for record in state["rounds"]]
        self.plans = [PruningPlan.from_json(plan) for plan in state["plans"]]
        self.open = state["open"]

    def describe(self, all_rounds: int, unit: str) -> str:
        """The round that has just ended in one line: size, held-out loss, learning rate, time, and the time left.

        That is estimated from the rounds so far, which later ones, of smaller models, hardly exceed.
        """
        last, seconds = self.records[-1], [sum(record.seconds.values()) for record in self.records]
        losses = [f"{last.before['loss']:.3f}", f"{last.after_cut['loss']:.3f} after the cut"]
        parts = [f"{format_size(last.size_before)} → {format_size(last.size)} {unit}"]
        if last.learning_rate is not None:
            losses.append(f"{last.after_recovery['loss']:.3f} after recovery")
        parts.append(f"held-out loss {' → '.join(losses)}")
        if last.learning_rate is not None:
            parts.append(f"learning rate {last.learning_rate:.2g}")
        left = (all_rounds - len(seconds)) * sum(seconds) / len(seconds)
        ending = f"; about {format_seconds(left)} left" if left else ""
        return f"round {last.number}/{all_rounds}: {', '.join(parts)}, {format_seconds(seconds[-1])}{ending}"


class Package(Protocol):
    """What a result is handed out as, where the model came as part of something else (see `encoders.packages`)."""

    @property
    def model(self) -> Any: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def save(self, folder: Path) -> None: ...


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
        package: for a sentence encoder or cross-encoder, `package.model` is the `SentenceTransformer` or
            `CrossEncoder` with the smaller model; its `facts` are in the record. None for a plain model.
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
    package: Package | None = field(default=None, repr=False)

    @property
    def source_size(self) -> float:
        """Of the model that was given; where its vocabulary was trimmed, before that."""
        trimmed = self.provenance.get("vocabulary")
        if trimmed is not None and self.unit == "parameters":
            return float(trimmed["parameters"][0])
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
            **({} if self.package is None else {"encoder": self.package.facts}),
        }

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Publishes the model with its page and tokenizer: see `schubert_hf.hub.publish` for more arguments.

        Raises:
            PublishError: nothing was published; the result is as it was.
        """
        # By name, since imports point one way: the hub knows of pruning.
        return import_module("schubert_hf.hub").publish(self, repo_id, **{"tokenizer": self.tokenizer, **kwargs})


def result_folders(output: Path | None, targets: Sequence[str | float]) -> list[Path]:
    """Where each target's result goes: `output` itself for one; for several, a folder in it named by the target.

    Raises:
        PruningConfigError: several targets and no `output`.
        OutputFolderError: `output` already holds a model, or the last target's, or cannot be written.
    """
    if output is None:
        if len(targets) > 1:
            raise PruningConfigError(
                f"`target` is {', '.join(map(str, targets))!r}, several sizes, and `output_dir` is None. Give a "
                "folder for them."
            )
        return []
    folders = [output / str(target).replace("%", "pct") for target in targets] if len(targets) > 1 else [output]
    check_output_folder(output)
    check_empty(folders[-1:])
    return folders


def check_empty(folders: Sequence[Path]) -> None:
    """Raises `OutputFolderError` where one of these folders already holds a model; makes none of them."""
    for folder in folders:
        if folder.exists():
            check_output_folder(folder)


def write_result(result: PruningResult) -> bool:
    """Writes a result into its folder; whether it was missing there."""
    opened_anywhere(result.model)  # also as its owner saves it
    folder = result.output_dir
    if folder is None or (folder / MARKER).exists():
        return False
    check_output_folder(folder)
    with result_files(folder) as files:
        save_shipped(files, result.model, result.tokenizer, result.package)
        write_json(files / PRUNING_RECORD, result.to_json())
    return True


def save_shipped(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, package: Package | None
) -> None:
    """Writes a package or, where there is none, a model and its tokenizer, with the files that open it anywhere."""
    if package is None:
        save_model(folder, model, tokenizer)
        ship(folder)
    else:
        package.save(folder)
