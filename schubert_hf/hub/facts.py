"""Everything that a model's page is made from, read off the model's folder; with a JSON form, without weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..configuration_schubert import SchuBertConfig
from ..run.output import FINETUNING_RECORD, PRUNING_RECORD
from ..shape import Shape
from .errors import RecordError
from .evaluations import Evaluation, parse_evaluations, read_evaluations
from .inspection import Inspection

LATENCY = "latency.json"

# What a config.json says that the page has no use for, or that differs from machine to machine.
_UNUSED = ("auto_map", "transformers_version", "_name_or_path")


@dataclass(frozen=True)
class Facts:
    """A model, and how it came about.

    Attributes:
        config: the content of its `config.json`.
        run: the content of `pruning.json`: settings, rounds, provenance; None for a model of which nothing is known.
        latency: what `latency.measure` gave; None if nobody measured.
        evaluations: results on tasks.
        license: the Hub's name for it, e.g. "apache-2.0"; None if unknown.
        tuned: the content of `finetuning.json`; None for a model that was not fine-tuned by our scripts.
    """

    config: dict[str, Any]
    run: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    evaluations: tuple[Evaluation, ...] = field(default=())
    license: str | None = None
    tuned: dict[str, Any] | None = None

    @classmethod
    def of_folder(cls, folder: Path, *, license: str | None = None) -> Facts:
        """Reads `config.json` and what lies beside it.

        Args:
            license: by default that of the base model, where the run recorded it.

        Raises:
            RecordError: one of the files cannot be read.
        """
        config = read_json(folder / "config.json")
        if config is None:
            raise RecordError(f"`{folder.name}` holds no config.json. Give the folder of a saved model.")
        found = cls(
            config={name: value for name, value in config.items() if name not in _UNUSED},
            run=read_json(folder / PRUNING_RECORD),
            latency=read_json(folder / LATENCY),
            evaluations=read_evaluations(folder),
            tuned=read_json(folder / FINETUNING_RECORD),
        )
        return replace(found, license=license or found.provenance.get("base_model", {}).get("license"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the pruning run; of a model that was only fine-tuned, what it was fine-tuned from."""
        if self.run is None and self.tuned is not None:
            return {"base_model": self.tuned.get("settings", {}).get("model", {})}
        found: dict[str, Any] = (self.run or {}).get("provenance", {})
        return found

    @property
    def base_name(self) -> str | None:
        name: str | None = self.provenance.get("base_model", {}).get("name")
        return name

    def inspect(self, name: str) -> Inspection:
        """Its shape beside that of the model it was pruned from."""
        config = SchuBertConfig.from_dict(dict(self.config))
        base = None if self.run is None else shape_of(self.run["source"])
        return Inspection(name, config, base, self.base_name)

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "run": self.run,
            "latency": self.latency,
            "evaluations": [evaluation.to_json() for evaluation in self.evaluations],
            "license": self.license,
            "tuned": self.tuned,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Facts:
        return cls(**{**value, "evaluations": parse_evaluations(value["evaluations"])})


def shape_of(lists: dict[str, list[int]]) -> Shape:
    """A shape out of its JSON."""
    return Shape(**{name: tuple(sizes) for name, sizes in lists.items()})


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Raises:
        RecordError: there is a file, and it holds no JSON object.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"`{path.name}` is no JSON: {error}. Write the folder anew.") from error
    if not isinstance(value, dict):
        raise RecordError(
            f"`{path.name}` holds a {type(value).__name__}, expected is an object. Write the folder anew."
        )
    return value
