"""Command lines from dataclasses, for the scripts and the command `schubert`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

from .errors import one_line_errors


def positional(text: str) -> Any:
    """A field that is given by its place on the command line, with its help text."""
    return field(metadata={"help": text, "positional": True})


def parse(description: str, *kinds: type[Any], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Parses a command line into one instance of each dataclass.

    The `help` metadata of a field is its help text; no two dataclasses may share a field's name. Fields of type
    `list[...]` take several values, booleans become `--x/--no-x`.
    """
    parser = _parser(argparse.ArgumentParser, kinds, description=description)
    values = vars(parser.parse_args(arguments))
    return tuple(_fill(kind, values) for kind in kinds)


def parse_command(
    prog: str,
    description: str,
    commands: Mapping[str, type[Any]],
    version: str,
    arguments: Sequence[str] | None = None,
) -> Any:
    """Parses `prog COMMAND ...` into an instance of the dataclass of that command, whose docstring describes it.

    Without arguments the help is printed, and the exit code is 2.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=version)
    choices = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, kind in commands.items():
        about = str(kind.__doc__)
        command = _parser(partial(choices.add_parser, name, help=about), [kind], description=about)
        command.set_defaults(kind=kind)
    values = vars(parser.parse_args(arguments))
    if not values:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return _fill(values["kind"], values)


def _parser(make: Callable[..., Any], kinds: Sequence[type[Any]], **settings: Any) -> argparse.ArgumentParser:
    """A parser with an argument for each field of the dataclasses."""
    parser: argparse.ArgumentParser = make(formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for option in dataclasses.fields(kind):
            text = option.metadata["help"].replace("%", "%%")  # argparse formats help texts with %
            if option.metadata.get("positional"):
                parser.add_argument(option.name, help=text)
            else:
                settings = _argument(option, hints[option.name])
                parser.add_argument(_flag(option), dest=option.name, help=text, **settings)
    return parser


def _fill(kind: type[Any], values: Mapping[str, Any]) -> Any:
    with one_line_errors():
        return kind(**{option.name: values[option.name] for option in dataclasses.fields(kind)})


def command_line(script: str, *values: Any) -> str:
    """The command line for these values, defaults omitted: the inverse of `parse`.

    Only the last part of a file's or folder's path is kept, so that no private path is published. All fields of the
    dataclasses must have defaults.
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
    flag = _flag(option)
    if isinstance(given, bool):
        return [flag if given else flag.replace("--", "--no-", 1)]
    if isinstance(given, dict):
        given = ",".join(f"{key}={part}" for key, part in given.items())
    parts = [str(part) for part in (given if isinstance(given, list) else [given])]
    parts = [Path(part).name if Path(part).is_absolute() or Path(part).exists() else part for part in parts]
    return [flag, *map(shlex.quote, parts)]


def _flag(option: dataclasses.Field[Any]) -> str:
    return f"--{option.name.replace('_', '-')}"


def _argument(option: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"default": option.default}
    if option.default_factory is not dataclasses.MISSING:
        settings = {"default": option.default_factory()}
    elif option.default is dataclasses.MISSING:
        settings = {"required": True}
    if hint is bool:
        return {**settings, "action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is list:
        return {**settings, "nargs": "+", "type": typing.get_args(hint)[0]}
    alternatives = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    # A field of several types, such as "66M" or 0.6, stays text; its dataclass parses it.
    return {**settings, "type": str if str in alternatives else alternatives[0]}
