"""The folder that is uploaded: made beside the result, never in it, and checked as a reader would open it.

Only here is the full `auto_map` written and are the two Python files copied.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..auto import auto_map
from ..configuration_schubert import SchuBertConfig, SchuBertConfigError
from ..conversion import ConversionError, convert_bert, load
from ..latency.measure import measure
from ..modeling_schubert import SchuBertLoadError
from ..run.output import FINETUNING_RECORD, PRUNING_RECORD
from ..run.provenance import sha256
from .card import check_card, has_text, is_generated, render_card
from .errors import PublishError, RecordError
from .evaluations import FILE as EVALUATIONS
from .evaluations import eval_result_files
from .facts import LATENCY, Facts
from .plots import ROUNDS, WIDTHS, draw_rounds, draw_widths

SHIPPED = ("configuration_schubert.py", "modeling_schubert.py")
README = "README.md"
CONFIG = "config.json"

# What else of a result's folder is uploaded. Not: checkpoints, optimizers, logs, other people's Python files.
_TAKEN = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    PRUNING_RECORD,
    FINETUNING_RECORD,
    LATENCY,
    EVALUATIONS,
)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Writes a model in memory, so that it can be staged; a BERT is converted."""
    if model.config.model_type == "bert":
        model = convert_bert(model)
    if model.config.model_type != SchuBertConfig.model_type:
        raise PublishError(f"`source` is a {model.config.model_type!r} model; allowed is a SchuBERT or a BERT.")
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
) -> None:
    """Fills the empty folder `target` with all that a published repository holds.

    Args:
        source: the folder of a result; it is only read.
        name: what the page calls the model.
        license: see `Facts.of_folder`.
        latency: measure it, where the folder has no `latency.json`.
        keep_readme: take the page of `source`, if it was written by hand.

    Raises:
        PublishError: `source` holds no model, or one that does not load or holds values that are no numbers, a
            tokenizer that does not fit, or Python files that are not the package's.
    """
    _check_source(source)
    for pattern in _TAKEN:
        for path in sorted(source.glob(pattern)):
            _place(path, target / path.name)
    for shipped in SHIPPED:
        shutil.copyfile(_own(shipped), target / shipped)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    config["auto_map"] = auto_map()
    (target / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    model = _load(target)
    if (target / "tokenizer_config.json").exists():
        _check_tokenizer(target, model.config)
    write_page(target, name, license=license, latency=latency)
    if keep_readme and (text := handwritten_page(source)) is not None:
        (target / README).write_text(text, encoding="utf-8")


def handwritten_page(folder: Path) -> str | None:
    """The README.md of a folder, if somebody wrote or edited it."""
    path = folder / README
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text if has_text(text) and not is_generated(text) else None


def write_page(folder: Path, name: str, *, license: str | None = None, latency: bool = False) -> None:
    """Writes README.md, its pictures and `.eval_results/` into a model's folder, from the data that lies there.

    Args:
        latency: measure it first, unless that was done.
    """
    facts = Facts.of_folder(folder, license=license)
    inspection = facts.inspect(name)
    if latency and facts.latency is None:
        times = measure(inspection.config, inspection.base_config)
        (folder / LATENCY).write_text(json.dumps(times, indent=2) + "\n", encoding="utf-8")
        facts = Facts.of_folder(folder, license=license)
    draw_widths(inspection.shape, folder / WIDTHS, inspection.base)
    if facts.run is not None:
        draw_rounds(facts.run, folder / ROUNDS)
    for path, text in eval_result_files(facts.evaluations).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    (folder / README).write_text(render_card(facts, name), encoding="utf-8")


def check_staged(folder: Path) -> None:
    """Looks at what is to be sent, once more and as a whole.

    Raises:
        PublishError: one of the two files is not the package's, `auto_map` is not whole, or the page's metadata cannot
            be read.
    """
    for shipped in SHIPPED:
        if sha256(folder / shipped) != sha256(_own(shipped)):
            raise PublishError(f"`{shipped}` is not the file of this package. Install schubert_hf anew.")
    if json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("auto_map") != auto_map():
        raise PublishError("`auto_map` in config.json is not whole.")
    try:
        check_card((folder / README).read_text(encoding="utf-8"))
    except RecordError as error:
        raise PublishError(str(error)) from error


def staged_files(folder: Path) -> dict[str, Path]:
    """Path in the repository -> file."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _check_source(source: Path) -> None:
    if not source.is_dir():
        raise PublishError(f"`{source}` is no folder. Give the folder of a saved model.")
    if not (source / CONFIG).exists():
        raise PublishError(f"`{source}` holds no config.json. Give the folder of a saved model.")
    try:
        model_type = json.loads((source / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise PublishError(f"`{source / CONFIG}` is no JSON object: {error}. Save the model again.") from error
    if model_type != SchuBertConfig.model_type:
        raise PublishError(
            f"`{source}` holds a {model_type!r} model; allowed is 'schubert'. Prune it, or convert it first."
        )
    for shipped in SHIPPED:
        if (source / shipped).exists() and sha256(source / shipped) != sha256(_own(shipped)):
            raise PublishError(
                f"`{source / shipped}` is not the file of this version of schubert_hf. Remove it to publish with the "
                "package's, or install the version that it is from."
            )


def _load(folder: Path) -> PreTrainedModel:
    """Opens a folder as a reader would."""
    try:
        model = load(folder)
    except (SchuBertConfigError, SchuBertLoadError, ConversionError, SafetensorError, OSError, ValueError) as error:
        raise PublishError(f"The model does not load: {error}".replace(str(folder), "the folder")) from error
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise PublishError(
            f"`{broken[0]}` holds values that are no numbers (NaN or infinity). Train again, or go back a round."
        )
    return model


def _check_tokenizer(folder: Path, config: Any) -> None:
    try:
        size = len(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise PublishError(f"The tokenizer does not load: {error}".replace(str(folder), "the folder")) from error
    if size > config.vocab_size:
        raise PublishError(
            f"The tokenizer has {size} words, the model {config.vocab_size}. Save the tokenizer of this model."
        )


def _own(name: str) -> Path:
    return Path(str(files("schubert_hf").joinpath(name)))


def _place(source: Path, target: Path) -> None:
    """A second name for the same bytes where the disk allows it, else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
