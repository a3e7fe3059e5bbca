"""Dataclass -> parser -> one call: what the scripts and commands share."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import one_line_errors

T = TypeVar("T")


def parse(
    description: str, *kinds: type[Any], arguments: Sequence[str] | None = None, prog: str | None = None
) -> tuple[Any, ...]:
    """Parses a command line into one instance of each dataclass; a field's `help` metadata is its help text.

    Args:
        description: the first lines of the help.
        kinds: dataclasses with disjoint field names. Fields of type `list[...]` take several values, booleans become
            `--x/--no-x`, fields with `positional` in their metadata are given by their place.
        arguments: by default those of the process.
        prog: what the help calls the program.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for option in dataclasses.fields(kind):
            if option.metadata.get("positional"):
                parser.add_argument(option.name, help=_help(option))
                continue
            flag = f"--{option.name.replace('_', '-')}"
            parser.add_argument(flag, dest=option.name, **_argument(option, hints[option.name]))
    values = vars(parser.parse_args(arguments))
    with one_line_errors():
        return tuple(
            kind(**{option.name: values[option.name] for option in dataclasses.fields(kind)}) for kind in kinds
        )


def command_line(script: str, *values: Any) -> str:
    """The command that `parse` would read these dataclasses from: what is not the default. The inverse of `parse`.

    Files and folders are named by their last part: where they lie is nobody's business.

    Args:
        script: how the program is called.
        values: dataclasses whose fields all have defaults.
    """
    words = [script]
    for value in values:
        plain = type(value)()
        for option in dataclasses.fields(value):
            given = getattr(value, option.name)
            if given != getattr(plain, option.name):
                words += _words(option, given)
    return " ".join(words)


def _words(option: dataclasses.Field[Any], given: Any) -> list[str]:
    flag = f"--{option.name.replace('_', '-')}"
    if isinstance(given, bool):
        return [flag if given else flag.replace("--", "--no-", 1)]
    if isinstance(given, dict):
        given = ",".join(f"{key}={part}" for key, part in given.items())
    parts = given if isinstance(given, list) else [given]
    parts = [Path(part).name if isinstance(part, str) and _is_local(part) else part for part in parts]
    return [flag, *(shlex.quote(str(part)) for part in parts)]


def _is_local(text: str) -> bool:
    return Path(text).is_absolute() or Path(text).exists()


def _help(option: dataclasses.Field[Any]) -> str:
    text: str = option.metadata["help"]
    return text.replace("%", "%%")  # argparse fills in what stands behind a per cent sign


def _argument(option: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"help": _help(option)}
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
