"""A model by name or folder -> its `Inspection`. Only JSON is read, no weights."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..configuration_schubert import PRESETS, SchuBertConfig
from ..run.output import PRUNING_RECORD
from ..shape import Shape
from .errors import InspectError, TransportError, explain
from .facts import Facts
from .inspection import Inspection

BERT_BASE = "bert-base"


def inspect(name: str | Path, *, base: str | None = None, revision: str | None = None) -> Inspection:
    """A model's widths and costs, beside its base's.

    Args:
        name: a folder, a model on the Hub, or a preset like "schubert-66m".
        base: what to compare with, one of the same; by default what the model was pruned from, BERT-base for a preset.
        revision: on the Hub.

    Raises:
        InspectError: there is no such model.
        SchuBertConfigError: it is neither SchuBERT nor BERT.
        RecordError: its files cannot be read.
    """
    found = _find(str(name), revision)
    if base is None:
        return found
    other = _find(base, None)
    return Inspection(found.name, found.config, Shape.of(other.config), base)


def _find(name: str, revision: str | None) -> Inspection:
    folder = Path(name)
    if folder.is_dir():
        return Facts.of_folder(folder).inspect(name)
    if name in PRESETS:
        base = None if name == BERT_BASE else Shape.of(SchuBertConfig.from_preset(BERT_BASE))
        return Inspection(name, SchuBertConfig.from_preset(name), base, None if base is None else BERT_BASE)
    try:
        validate_repo_id(name)
        config = Path(hf_hub_download(name, "config.json", revision=revision))
        _download_run(name, revision)
    except HFValidationError:
        raise InspectError(
            f"`{name}` is no folder, no preset ({', '.join(PRESETS)}) and no legal name on the Hub."
        ) from None
    except (LocalEntryNotFoundError, ConnectionError):
        raise InspectError(
            f"`{name}` is no folder and no preset, and the Hub cannot be reached. Check the spelling, the network and "
            "HF_ENDPOINT."
        ) from None
    except EntryNotFoundError:
        raise InspectError(f"`{name}` has no config.json. Give a model of transformers.") from None
    except (HfHubHTTPError, TransportError) as error:
        raise InspectError(explain(error, name)) from None
    return Facts.of_folder(config.parent).inspect(name)


def _download_run(name: str, revision: str | None) -> None:
    """Puts the record of the run beside the config, where there is one."""
    try:
        hf_hub_download(name, PRUNING_RECORD, revision=revision)
    except EntryNotFoundError:
        return
