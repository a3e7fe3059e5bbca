"""A model of sentence-transformers with another transformer inside: everything else is carried over as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..conversion import why_not_opened
from ..data.sources import first_line
from ..run.progress import quiet
from ..shipping import ship
from .kinds import TRANSFORMER, EncoderError, modules_of

# Pooling modes -> the ends of their old settings' names.
OLD_POOLING = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}


def open_library(kind: str, given: Any) -> Any:
    """A `SentenceTransformer` or `CrossEncoder` of a name or folder, or a copy of one; on the CPU, in float32.

    Raises:
        EncoderError: it cannot be opened.
    """
    if not isinstance(given, str):
        return copy.deepcopy(given).to("cpu").float().eval()

    import sentence_transformers
    import torch

    options = {"dtype": torch.float32, "use_safetensors": True}
    try:
        # A pooler that the checkpoint lacks is drawn: the same for every process, and for a run that is resumed.
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            opened = getattr(sentence_transformers, kind)(given, device="cpu", model_kwargs=options)
    except SafetensorError as error:
        raise EncoderError(f"`{given}` cannot be opened: {why_not_opened(given, error)}") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
        raise EncoderError(
            f"`{given}` cannot be opened as a {kind}: {first_line(error)} Give a folder that "
            f"`{kind}.save_pretrained` wrote, or a name on the Hub."
        ) from error
    return opened.eval()


def carried(
    source: Any,
    model: PreTrainedModel,
    behind: Sequence[tuple[str, Any]],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Any:
    """A copy of `source` around `model`, with these modules behind the transformer; `source` is left as it is.

    Args:
        tokenizer: of `model`; None: that of `source`.
    """
    first, transformer = next(iter(source._modules.items()))
    transformer = copy.copy(transformer)
    transformer._modules = {**transformer._modules, "model": model}
    if tokenizer is not None:
        transformer.processor, transformer._prompt_length_mapping = tokenizer, {}
    made = copy.copy(source)
    made._modules = {first: transformer, **dict(behind)}
    made.model_card_data = copy.copy(source.model_card_data)
    made.model_card_data.register_model(made)  # else it would hold the weights of `source`
    return made


def save(source: Any, folder: Path) -> None:
    """Writes what `carried` made, so that sentence-transformers opens the folder with or without this package."""
    with quiet():
        source.save_pretrained(str(folder), create_model_card=False)
    ship(folder)
    _add_old_names(source, folder)


def _add_old_names(source: Any, folder: Path) -> None:
    """Adds the settings that sentence-transformers before 5.4 wrote, and many servers still read; it ignores them.

    text-embeddings-inference's router parses both files, and refuses a folder in which one of these is missing.
    """
    for module in modules_of(str(folder)):
        config = folder / module["path"] / "config.json"
        if module["type"].rpartition(".")[2] == "Pooling":
            modes = json.loads(config.read_text(encoding="utf-8"))["pooling_mode"]
            used = {modes} if isinstance(modes, str) else set(modes)
            _update(config, {f"pooling_mode_{name}": mode in used for mode, name in OLD_POOLING.items()})
    if (folder / TRANSFORMER).exists() and source.max_seq_length is not None:
        _update(folder / TRANSFORMER, {"max_seq_length": source.max_seq_length})


def _update(path: Path, settings: dict[str, Any]) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **settings}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
