"""Everything that a model's page is made from, read from the model's folder; with a JSON form, without weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..evaluation.results import Evaluation
from ..export.record import current_exports
from ..latency.timing import measure
from ..run.checkpoint import write_json
from ..run.output import FINETUNING_RECORD, PRUNING_RECORD, TRIMMING_RECORD
from .encoders import facts_of_files
from .errors import RecordError
from .evaluations import read_evaluations
from .inspection import Inspection, read_config, read_json

LATENCY = "latency.json"
TOKENIZER = "tokenizer_config.json"


@dataclass(frozen=True)
class Record:
    """What is known of a model and its making; None stands for what is not."""

    config: dict[str, Any]  # the content of `config.json`
    run: dict[str, Any] | None = None  # of `pruning.json`: settings, rounds, provenance
    latency: dict[str, Any] | None = None  # the result of `latency.timing.measure`
    evaluations: tuple[Evaluation, ...] = ()
    license: str | None = None  # the Hub's name for it, e.g. "apache-2.0"
    tuned: dict[str, Any] | None = None  # of `finetuning.json`
    tokenizer: str | None = None  # its class
    trimmed: dict[str, Any] | None = None  # of `trimming.json`, where only the vocabulary was cut
    exports: dict[str, Any] = field(default_factory=dict)  # of `exports.json`: file -> what is known of it
    saved_encoder: dict[str, Any] | None = None  # what the files of sentence-transformers say, if there are any

    @classmethod
    def of_folder(cls, folder: Path, *, license: str | None = None) -> Record:
        """Reads `config.json` and the records next to it; the licence is the base model's by default, if recorded.

        Raises:
            RecordError: one of the files cannot be read.
            ExportError: its exports are not those of its weights.
        """
        config = read_config(folder)
        record = cls(
            config=config,
            run=read_json(folder / PRUNING_RECORD),
            latency=read_json(folder / LATENCY),
            evaluations=read_evaluations(folder),
            tuned=read_json(folder / FINETUNING_RECORD),
            exports=current_exports(folder),
            tokenizer=(read_json(folder / TOKENIZER) or {}).get("tokenizer_class"),
            trimmed=read_json(folder / TRIMMING_RECORD),
            saved_encoder=facts_of_files(folder, config),
        )
        return replace(record, license=license or record.base_model.get("license"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the run that made it smaller; for a model that was fine-tuned alone, the checkpoint it began with."""
        if self.made is None and self.tuned is not None:
            # Version 0.1 kept it among the settings.
            return {"base_model": self.tuned.get("base_model") or self.tuned.get("settings", {}).get("model", {})}
        return dict((self.made or {}).get("provenance", {}))

    @property
    def made(self) -> dict[str, Any] | None:
        """How it was made smaller: the record of the pruning run, or of the trimming."""
        return self.run or self.trimmed

    @property
    def package(self) -> dict[str, Any] | None:
        """What is known of a sentence encoder or cross-encoder; of one that was fine-tuned, what its files say."""
        return (self.made or {}).get("encoder") or self.saved_encoder

    @property
    def base_model(self) -> dict[str, Any]:
        """What `provenance.base_model` recorded; empty if nothing is known."""
        return dict(self.provenance.get("base_model", {}))

    def inspect(self, name: str) -> Inspection:
        """Its shape next to that of the model it was pruned from."""
        return Inspection.of_json(name, self.config, self.made)

    def measured(self, folder: Path | None = None) -> Record:
        """The same with its latency, measured now unless it is known, and written to a folder if one is given."""
        if self.latency is not None:
            return self
        model = self.inspect("model")
        latency = measure(model.config, model.dense.config if model.dense else None)
        if folder is not None:
            write_json(folder / LATENCY, latency)
        return replace(self, latency=latency)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "evaluations": [evaluation.to_json() for evaluation in self.evaluations]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        return cls(**{**value, "evaluations": tuple(map(Evaluation.from_json, value["evaluations"]))})


def dense_name(folder: Path) -> str:
    """The dense model's name on the Hub, or its folder, as the record of a pruned model has it.

    Raises:
        RecordError: there is no record, or it names a folder that is not here.
    """
    record = read_json(folder / PRUNING_RECORD) or read_json(folder / TRIMMING_RECORD) or {}
    base = record.get("provenance", {}).get("base_model", {})
    name = base.get("name")
    if name is None or not (base.get("hub") or Path(name).exists()):
        raise RecordError(
            f"`{folder}` does not say where the dense model is{f', only that it was `{name}`' if name else ''}. Give "
            "`--dense`, its folder or its name on the Hub."
        )
    return str(name)


Facts = Record  # its public name in version 0.1
