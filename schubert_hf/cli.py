"""Dataclass -> parser -> one call: what the scripts and commands share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from .configuration_schubert import SchuBertConfigError
from .conversion import ConversionError
from .cost import BudgetError
from .modeling_schubert import SchuBertLoadError
from .pruning.config import PruningConfigError
from .pruning.plan import PlanError
from .pruning.units import UnknownTensorError
from .training.checkpoint import CheckpointError
from .training.loop import NonFiniteLossError
from .training.objective import ObjectiveError
from .training.output import OutputFolderError
from .training.text import TextSourceError

T = TypeVar("T")

# What a user's input can cause: shown as one line. Anything else is a bug and keeps its traceback.
USER_ERRORS = (
    BudgetError,
    CheckpointError,
    ConversionError,
    NonFiniteLossError,
    ObjectiveError,
    OutputFolderError,
    PlanError,
    PruningConfigError,
    SchuBertConfigError,
    SchuBertLoadError,
    TextSourceError,
    UnknownTensorError,
)


def parse(description: str, *kinds: type[Any], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Parses a command line into one instance of each dataclass; a field's `help` metadata is its help text.

    Args:
        kinds: dataclasses with disjoint field names. Fields of type `list[...]` take several values, booleans become `--x/--no-x`.
        arguments: by default those of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for option in dataclasses.fields(kind):
            parser.add_argument(f"--{option.name.replace('_', '-')}", dest=option.name, **_argument(option, hints[option.name]))
    values = vars(parser.parse_args(arguments))
    with one_line_errors():
        return tuple(kind(**{option.name: values[option.name] for option in dataclasses.fields(kind)}) for kind in kinds)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors of bad input into one line on stderr and exit code 2; the other processes of a run end silently."""
    try:
        yield
    except USER_ERRORS as error:
        if int(os.environ.get("RANK", "0")) == 0:
            raise SystemExit(f"error: {error}") from None
        raise SystemExit(2) from None


def _argument(option: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"help": option.metadata["help"]}
    if option.default is not dataclasses.MISSING:
        settings["default"] = option.default
    elif option.default_factory is not dataclasses.MISSING:
        settings["default"] = option.default_factory()
    else:
        settings["required"] = True
    if hint is bool:
        return {**settings, "action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is list:
        return {**settings, "nargs": "+", "type": typing.get_args(hint)[0]}
    alternatives = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    # Of "66M or 0.6" the text says all; the dataclass reads numbers out of it.
    return {**settings, "type": str if str in alternatives else alternatives[0]}
