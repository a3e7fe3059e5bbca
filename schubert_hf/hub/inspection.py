"""The widths and costs of a model, part by part, next to its base's. Only JSON is read, no weights."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from ..configuration_schubert import ARCHITECTURES, SchuBertConfig
from ..encoders.kinds import MODULES, modules_of, transformer_folder
from ..run.output import PRUNING_RECORD, TRIMMING_RECORD
from ..shape import DIMENSIONS, Shape, with_shape
from .errors import FAILURES, InspectError, RecordError, explain

BERT_BASE = "bert-base"
CONFIG = "config.json"
_UNUSED = ("auto_map", "transformers_version", "_name_or_path")
SEQUENCE = 128  # tokens of the one sequence that FLOPs are counted for


def inspect(name: str | Path, *, base: str | None = None, revision: str | None = None) -> Inspection:
    """A model's widths and costs, next to its base's.

    Args:
        name: a folder, a model on the Hub, or a preset such as "schubert-66m".
        base: what to compare with, given in the same way; by default what the model was pruned from, and BERT-base
            for a preset.
        revision: branch, tag or commit on the Hub.

    Raises:
        InspectError: there is no such model.
        SchuBertConfigError: the model is neither a SchuBERT nor of a family that becomes one.
        RecordError: its files cannot be read.
    """
    model = _open(str(name), revision)
    return model if base is None else replace(model, base=_open(base, None).shape, base_name=base)


def inspect_preset(preset: str) -> Inspection:
    """One of the paper's shapes, next to BERT-base."""
    model = Inspection(preset, SchuBertConfig.from_preset(preset))
    return model if preset == BERT_BASE else replace(model, base=Shape.of(SchuBertConfig()), base_name=BERT_BASE)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Raises:
        RecordError: the file holds no JSON object.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"`{path.name}` is not JSON: {error}. Write the folder again.") from error
    if not isinstance(value, dict):
        raise RecordError(
            f"`{path.name}` holds a {type(value).__name__}; expected is an object. Write the folder again."
        )
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder, without what a page has no use for or what differs between machines.

    Raises:
        RecordError: there is none, or it cannot be read.
    """
    config = read_json(folder / CONFIG)
    if config is None:
        raise RecordError(f"`{folder.name}` holds no config.json. Give the folder of a saved model.")
    return {name: value for name, value in config.items() if name not in _UNUSED}


class Parts(NamedTuple):
    """A cost by part, with `encoder` = `attention` + `filters`."""

    embeddings: int
    encoder: int
    attention: int
    filters: int
    pooler: int
    head: int
    total: int

    @classmethod
    def of(cls, attention: int, filters: int, pooler: int, *, embeddings: int = 0, head: int = 0) -> Parts:
        encoder = attention + filters
        return cls(embeddings, encoder, attention, filters, pooler, head, embeddings + encoder + pooler + head)


def parameter_parts(config: SchuBertConfig, architecture: str) -> Parts:
    """Parameters, tied ones once."""
    known = config.parameter_breakdown(architecture)
    attention, filters = (
        sum(count for name, count in known.items() if name.endswith(kind)) for kind in (".attention", ".filters")
    )
    return Parts.of(attention, filters, known["pooler"], embeddings=known["embeddings"], head=known["head"])


def flop_parts(config: SchuBertConfig, seq_len: int = SEQUENCE) -> Parts:
    """FLOPs of one sequence through encoder and pooler. Embeddings are look-ups, but for a projection of them."""
    shape, none, total = Shape.of(config), (0,) * config.num_hidden_layers, config.flops(seq_len)
    without = (
        replace(shape, embedding_size=None),
        replace(shape, head_counts=none),
        replace(shape, filter_sizes=none),
    )
    embeddings, attention, filters = (total - with_shape(config, one).flops(seq_len) for one in without)
    return Parts.of(attention, filters, total - embeddings - attention - filters, embeddings=embeddings)


@dataclass(frozen=True)
class Inspection:
    """A model's widths and costs, next to its base's where that is known."""

    name: str  # as the user gave it
    config: SchuBertConfig
    base: Shape | None = None  # what it was pruned from or is compared with
    base_name: str | None = None
    base_words: int | None = None  # embeddings of the base, where the vocabulary was trimmed

    @classmethod
    def of_json(cls, name: str, config: dict[str, Any], run: dict[str, Any] | None) -> Inspection:
        """Of the contents of `config.json` and of `pruning.json` or `trimming.json`.

        Raises:
            RecordError: the record of the run lacks the shape of the base.
        """
        try:
            base = None if run is None else Shape.from_json(run["source"])
        except (KeyError, TypeError) as error:
            raise RecordError(
                f"The record of the run ({PRUNING_RECORD} or {TRIMMING_RECORD}) does not say what shape the base had. "
                "Copy it from the run's folder again, or remove it."
            ) from error
        provenance = (run or {}).get("provenance", {})
        base_name, rows = provenance.get("base_model", {}).get("name"), provenance.get("vocabulary", {}).get("rows")
        return cls(name, SchuBertConfig.from_dict(dict(config)), base, base_name, rows and rows[0])

    @property
    def architecture(self) -> str:
        """The SchuBERT class that the config names, or the base model."""
        return next((name for name in self.config.architectures or [] if name in ARCHITECTURES), "SchuBertModel")

    @property
    def shape(self) -> Shape:
        return Shape.of(self.config)

    @property
    def dense(self) -> Inspection | None:
        """The base on its own, with this model's head; None if it is unknown."""
        if self.base is None:
            return None
        dense = with_shape(self.config, self.base)
        dense.vocab_size = self.base_words or dense.vocab_size
        return Inspection(self.base_name or "base", dense)

    @property
    def parameters(self) -> Parts:
        return parameter_parts(self.config, self.architecture)

    @property
    def flops(self) -> Parts:
        return flop_parts(self.config)

    @property
    def pruned_dimensions(self) -> list[str]:
        """The letters of h, f, a, k, v, e in which a model is narrower than its base, and l if layers are missing.

        Which layers are missing is unknown: a dimension then counts if its narrowest layer is below the base's.
        """
        if self.base is None:
            return []
        sizes = {letter: (getattr(self.base, name), getattr(self.shape, name)) for letter, name in DIMENSIONS.items()}
        narrower = ["e"] if self.shape.embedding_size != self.base.embedding_size else []
        if len(self.base.hidden_sizes) == len(self.shape.hidden_sizes):
            return [letter for letter, (base, own) in sizes.items() if base != own] + narrower
        return [letter for letter, (base, own) in sizes.items() if min(own) < min(base)] + ["l"] + narrower

    def to_json(self) -> dict[str, Any]:
        names = {"name": self.name, "architecture": self.architecture, "family": self.config.family}
        value: dict[str, Any] = {**names, **self._costs()}
        if dense := self.dense:
            value["base"] = {"name": self.base_name, **dense._costs()}
            own = self._sums()
            value["removed"] = {name: round(1 - own[name] / n, 4) if n else 0.0 for name, n in dense._sums().items()}
        return value

    def _costs(self) -> dict[str, Any]:
        flops = {name: count for name, count in self.flops._asdict().items() if count}
        parameters = self.parameters._asdict()
        shape: dict[str, Any] = self.shape.lists()
        if self.shape.embedding_size is not None:
            shape["embedding_size"] = self.shape.embedding_size
        return {"shape": shape, "parameters": parameters, "flops": {"sequence_length": SEQUENCE, **flops}}

    def _sums(self) -> dict[str, int]:
        widths = {name: sum(sizes) for name, sizes in self.shape.lists().items()}
        return {**widths, "parameters": self.parameters.total, "flops": self.flops.total}


def _open(name: str, revision: str | None) -> Inspection:
    folder = Path(name)
    if not folder.is_dir():
        if name in SchuBertConfig.presets:
            return inspect_preset(name)
        try:
            folder = Path(hf_hub_download(name, CONFIG, revision=revision)).parent
            for file in (PRUNING_RECORD, TRIMMING_RECORD, MODULES):
                with contextlib.suppress(EntryNotFoundError):  # of a model that was not pruned, or is no encoder
                    hf_hub_download(name, file, revision=revision)
            if inside := transformer_folder(modules_of(str(folder))):
                hf_hub_download(name, f"{inside}/{CONFIG}", revision=revision)
        except (HFValidationError, *FAILURES) as error:
            presets = ", ".join(SchuBertConfig.presets)
            raise InspectError(
                f"`{name}` is neither a folder nor a preset ({presets}). On the Hub: "
                f"{explain(error, name, sends=False)}"
            ) from None
    record = read_json(folder / PRUNING_RECORD) or read_json(folder / TRIMMING_RECORD)
    config = read_config(folder / transformer_folder(modules_of(str(folder))))
    return Inspection.of_json(name, config, record)
