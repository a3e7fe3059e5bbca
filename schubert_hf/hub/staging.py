"""The folder that is uploaded: built beside the result, never in it, and loaded as a reader would load it.

A sentence encoder or cross-encoder keeps the files and folders of sentence-transformers.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_schubert import SchuBertConfig
from ..conversion import convert_bert, load
from ..encoders.kinds import MODULES, SETTINGS, TRANSFORMER, modules_of
from ..errors import USER_ERRORS
from ..evaluation.loading import load_tokenizer
from ..export.record import RECORD, current_exports
from ..run.output import FINETUNING_RECORD, PRUNING_RECORD, TOKENIZER_FILES, TRIMMING_RECORD
from ..shipping import SHIPPED, ship
from .errors import PublishError
from .evaluations import FILE as EVALUATIONS
from .inspection import CONFIG, read_config
from .page import check_card
from .record import LATENCY, Record
from .writing import README, handwritten_page, write_page

# What else is uploaded from a result's folder: no checkpoints, optimizers, logs, or other people's Python files.
_TAKEN = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    *TOKENIZER_FILES,
    PRUNING_RECORD,
    TRIMMING_RECORD,
    FINETUNING_RECORD,
    LATENCY,
    EVALUATIONS,
    MODULES,
    SETTINGS,
    TRANSFORMER,
)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Saves a model from memory, so that it can be staged; one of another family is converted."""
    if model.config.model_type != SchuBertConfig.model_type:
        try:
            model = convert_bert(model)
        except USER_ERRORS as error:
            raise PublishError(f"`source` cannot be published as a SchuBERT. {error}") from error
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def stage(
    source: Path,
    target: Path,
    name: str,
    *,
    license: str | None = None,
    latency: bool = True,
    keep_readme: bool = True,
) -> Record:
    """Fills the empty folder `target` with everything that a published repository holds.

    Args:
        source: the folder of a result; it is only read.
        name, license, latency: see `write_page`.
        keep_readme: keep the page of `source` if it was written by hand.

    Returns:
        What its page was made from.

    Raises:
        PublishError: `source` holds no model, one that does not load or has NaN or infinite weights, a tokenizer that
            does not fit, or Python files that are not the package's.
        RecordError: its records or the metadata of its page cannot be read.
        ExportError: its exports are not those of its weights.
    """
    _check_source(source)
    exports = current_exports(source)
    files = [RECORD, *(name for known in exports.values() for name in known["files"])] if exports else []
    for path in [path for pattern in (*_TAKEN, *_modules(source), *files) for path in source.glob(pattern)]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        try:
            os.link(path.resolve(), copy)  # the weights are large
        except OSError:  # on another disk
            shutil.copyfile(path, copy)
    ship(target, source / CONFIG)
    _check_weights_and_tokenizer(target)
    record = write_page(target, name, license=license, latency=latency)
    if keep_readme and (text := handwritten_page(source)) is not None:
        (target / README).write_text(text, encoding="utf-8")
    check_card((target / README).read_text(encoding="utf-8"))
    return record


def _modules(source: Path) -> list[str]:
    """What else is taken of a sentence encoder: the settings and weights of the modules behind its transformer."""
    folders = [Path(module["path"]).name for module in modules_of(str(source)) if module["path"]]
    return [f"{folder}/{name}" for folder in folders for name in ("config.json", "model.safetensors")]


def _check_source(source: Path) -> None:
    if not source.is_dir():
        raise PublishError(f"`{source}` is no folder. Give the folder of a saved model.")
    check_model_type(source)
    for shipped in SHIPPED:
        copy = source / shipped.name
        if copy.exists() and copy.read_bytes() != shipped.read_bytes():
            raise PublishError(
                f"`{copy}` is not the file of this version of schubert_hf. Remove it to publish the "
                "package's, or install the version that it comes from."
            )


def check_model_type(source: Path) -> None:
    """Raises `PublishError` for a folder whose model is of another type: what a page says would be wrong of it."""
    model_type = read_config(source).get("model_type")
    if model_type != SchuBertConfig.model_type:
        raise PublishError(
            f"`{source}` holds a {model_type!r} model; allowed is 'schubert'. Prune it, or convert it first."
        )


def _check_weights_and_tokenizer(folder: Path) -> None:
    """Loads a folder as a reader would."""
    what = "model"
    try:
        model = load(folder)
        if (folder / "tokenizer_config.json").exists():
            what = "tokenizer"
            load_tokenizer(folder, model.config)
    except (SafetensorError, OSError, ValueError) as error:
        raise PublishError(f"The {what} does not load: {error}".replace(str(folder), "the folder")) from error
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise PublishError(f"`{name}` holds NaN or infinite values. Train again, or go back a round.")
