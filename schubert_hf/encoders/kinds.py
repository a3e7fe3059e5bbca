"""What sentence-transformers calls a checkpoint, told from its files alone: importing that library takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..families import FAMILIES
from ..families.others import REFUSED, refusal

LIBRARY = "sentence_transformers"
SENTENCE, CROSS = "SentenceTransformer", "CrossEncoder"
MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"  # settings of its first module
# What may stand behind the transformer: each reads the pooled vector and writes it back.
BEHIND = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
WEIGHTED = ("Dense", "LayerNorm")  # those that have weights in their folder


class EncoderError(SchuBertError):
    """A sentence encoder or cross-encoder that cannot be opened or pruned."""


def kind_of(model: Any) -> str | None:
    """The class of sentence-transformers that opens a checkpoint, such as "SentenceTransformer", or that a model has.

    Returns:
        None for anything else, also where nothing can be found under the name.

    Raises:
        EncoderError: it has a modules.json that lists no modules.
    """
    if not isinstance(model, str):
        kinds = [kind.__name__ for kind in type(model).__mro__ if kind.__module__.partition(".")[0] == LIBRARY]
        return next((name for name in kinds if name in (SENTENCE, CROSS, "SparseEncoder")), None)
    if modules_of(model):
        return str((read(model, SETTINGS) or {}).get("model_type", SENTENCE))
    config = read(model, "config.json") or {}
    classifies = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    marked = LIBRARY in config or "sbert_ce_default_activation_function" in config
    return CROSS if classifies and marked else None


def is_sentence_encoder(model: Any) -> bool:
    """Whether a folder, a name on the Hub or an object is a `SentenceTransformer`."""
    return kind_of(model) == SENTENCE


def check_checkpoint(name: str) -> None:
    """Raises `EncoderError` for a sentence encoder that cannot be pruned, before any of it is opened.

    That matters: sentence-transformers runs the code of a local folder without asking, and unpickles the weights of a
    module where it finds no others.
    """
    modules = modules_of(name)
    check_modules(f"`{name}`", [module["type"] for module in modules])
    for module in modules[2:]:
        kind = module["type"].rpartition(".")[2]
        if kind in WEIGHTED and _find(name, f"{module['path']}/model.safetensors") is None:
            raise EncoderError(
                f"`{name}` has no safetensors weights of its {kind}. A pytorch_model.bin is not read, since that "
                "unpickles what it holds. If you trust it, convert it once: `SentenceTransformer(name)."
                "save_pretrained(folder)`."
            )
    folder = transformer_folder(modules)
    config = read(name, f"{folder}/config.json" if folder else "config.json") or {}
    check_family(f"`{name}`", config.get("model_type"))


def modules_of(name: str) -> list[dict[str, str]]:
    """`type` and `path` of each module of a sentence encoder, from its modules.json; empty where it has none.

    Raises:
        EncoderError: the file lists no modules.
    """
    try:
        path = _find(name, MODULES)
    except (OSError, ValueError):  # no name that anything can have
        return []
    try:
        modules = [] if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        return [{**module, "type": str(module["type"]), "path": str(module.get("path") or "")} for module in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(
            f"`{MODULES}` of `{name}` cannot be read as a list of modules with a `type` each: {error!r}. Copy or "
            "download it again."
        ) from error


def transformer_folder(modules: list[dict[str, str]]) -> str:
    """Where in a checkpoint with such modules its transformer lies: "" for its root, as of old "0_Transformer"."""
    return modules[0]["path"] if modules else ""


def check_modules(name: str, types: Sequence[str]) -> None:
    """Raises `EncoderError` unless a transformer, a pooling and what may stand behind it follow each other."""
    for module in types:
        if module.partition(".")[0] != LIBRARY:
            raise EncoderError(
                f"{name} has a module with code of its own, `{module}`. Allowed are sentence-transformers' own: "
                f"Transformer, {', '.join(BEHIND)}. Prune the encoder inside it as a plain model."
            )
    names = [module.rpartition(".")[2] for module in types]
    if names[:1] != ["Transformer"]:
        raise EncoderError(
            f"{name} begins with the module `{names[0] if names else 'none'}`. Allowed is a Transformer, since "
            "that is what is pruned; static embeddings and routers have none."
        )
    if names[1:2] != ["Pooling"]:
        raise EncoderError(
            f"{name} has `{names[1] if len(names) > 1 else 'nothing'}` behind its Transformer. Allowed is a Pooling."
        )
    for module in names[2:]:
        if module not in BEHIND[1:]:
            raise EncoderError(
                f"{name} has the module `{module}` behind its Pooling. Allowed: {', '.join(BEHIND[1:])}."
            )


def check_family(name: str, family: str | None) -> None:
    """Raises `EncoderError` for a transformer that cannot become a SchuBERT."""
    if family in REFUSED:
        raise EncoderError(f"The Transformer of {name} is of the family {family!r}. {refusal(family)}")
    if family not in (*FAMILIES, SchuBertConfig.model_type):
        raise EncoderError(
            f"The Transformer of {name} is of the family {family!r}. Allowed are {', '.join(FAMILIES)}: take an "
            "encoder that is built on one of them."
        )


def read(name: str, file: str, form: type = dict) -> Any:
    """A JSON file of a checkpoint, a folder or a name on the Hub; None where it is not there or holds no `form`."""
    try:
        path = _find(name, file)
        value = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        return value if isinstance(value, form) else None
    except (OSError, ValueError):
        return None


def _find(name: str, file: str) -> str | None:
    """Where a file of a checkpoint is, fetched from the Hub if need be; None where it is not there."""
    find = partial(cached_file, _raise_exceptions_for_missing_entries=False)
    found: str | None = find(
        name, file, _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False
    )
    return found
