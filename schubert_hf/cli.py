"""Command lines from dataclasses, for the scripts and the command `schubert`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import shlex
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from .errors import one_line_errors

# Titles and the fields under each; fields that none of them names stand under the one whose fields are None.
Groups = Mapping[str, tuple[str, ...] | None]


def positional(text: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is given by its place on the command line, with its help text; one with a default may be absent."""
    return field(default=default, metadata={"help": text, "positional": True})


def parse(
    description: str,
    *kinds: type[Any],
    arguments: Sequence[str] | None = None,
    groups: Groups | None = None,
    usage: str | None = None,
) -> tuple[Any, ...]:
    """Parses a command line into one instance of each dataclass.

    The `help` metadata of a field is its help text; no two dataclasses may share a field's name. Fields of type
    `list[...]` take several values, booleans become `--x/--no-x`.

    Args:
        description: what the help begins with; indented paragraphs, such as examples, are shown as they are.
        groups: the help's headings, with the fields under each.
        usage: the help's first line; by default every setting.
    """
    parser = _parser(argparse.ArgumentParser, kinds, groups, description=description, usage=usage)
    values = vars(parser.parse_args(arguments))
    return tuple(_fill(kind, values) for kind in kinds)


def parse_command(
    prog: str,
    description: str,
    commands: Mapping[str, type[Any]],
    version: str,
    arguments: Sequence[str] | None = None,
) -> tuple[Any, ...]:
    """Parses `prog COMMAND ...` into an instance of the dataclass of that command, whose docstring describes it.

    A command may name further dataclasses in `settings`, whose instances follow its own, and have `groups` and a
    `usage`, as in `parse`. Without arguments the help is printed, and the exit code is 2.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=version)
    choices = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in commands.items():
        about, kinds = inspect.cleandoc(str(command.__doc__)), (command, *getattr(command, "settings", ()))
        command_parser = _parser(
            partial(choices.add_parser, name, help=_literal(about.partition("\n")[0])),
            kinds,
            getattr(command, "groups", None),
            description=about,
            usage=getattr(command, "usage", None),
        )
        command_parser.set_defaults(kinds=kinds, parser=command_parser)
    given, unknown = parser.parse_known_args(arguments)
    values = vars(given)
    if unknown:
        _refuse(values.get("parser", parser), unknown[0])
    if not values:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return tuple(_fill(kind, values) for kind in values["kinds"])


def _refuse(parser: argparse.ArgumentParser, word: str) -> None:
    """Ends with what cannot be placed on a command line, and with the option that may be meant."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    near = get_close_matches(word.partition("=")[0], known, n=1) if word.startswith("-") else []
    hint = f" Did you mean {near[0]}?" if near else ""
    parser.error(f"no such {'option' if word.startswith('-') else 'argument'}: {word}.{hint} --help lists all.")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than None, and wraps paragraphs that are not indented."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        wrap = super()._fill_text
        return "\n\n".join(part if part[:1] == " " else wrap(part, width, indent) for part in text.split("\n\n"))


def _literal(text: str) -> str:
    """Text that argparse, which formats its texts with %, shows as it is."""
    return text.replace("%", "%%")


def _parser(
    make: Callable[..., Any],
    kinds: Sequence[type[Any]],
    groups: Groups | None,
    description: str,
    usage: str | None,
) -> argparse.ArgumentParser:
    """A parser with an argument for each field of the dataclasses."""
    parser: argparse.ArgumentParser = make(
        formatter_class=_HelpFormatter, description=description, usage=usage and _literal(usage)
    )
    places: dict[str | None, Any] = {None: parser}  # of a field's name; None: of all others
    for title, names in (groups or {}).items():
        group = parser.add_argument_group(title)
        places |= dict.fromkeys([None] if names is None else names, group)
    order = list(places)  # in which a group lists its settings
    options = [(option, typing.get_type_hints(kind)) for kind in kinds for option in dataclasses.fields(kind)]
    options.sort(key=lambda pair: order.index(pair[0].name) if pair[0].name in places else len(order))
    for option, hints in options:
        place = places.get(option.name, places[None])
        text = _literal(option.metadata["help"])
        if option.metadata.get("positional"):
            absent = {} if option.default is dataclasses.MISSING else {"nargs": "?", "default": option.default}
            several = {"nargs": "+"} if typing.get_origin(hints[option.name]) is list else {}
            place.add_argument(option.name, help=text, **absent, **several)
        else:
            settings = _argument(option, hints[option.name])
            place.add_argument(_flag(option), dest=option.name, help=text, **settings)
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
    parts = [_public(part) for part in (given if isinstance(given, list) else [given])]
    return [*([] if option.metadata.get("positional") else [flag]), *map(shlex.quote, parts)]


def python_call(function: str, *given: tuple[str, Any], **named: Any) -> str:
    """The call of a function, as Python; like `command_line`, it tells the last part of a path only.

    Args:
        given: name and value of what is given by its place.
        named: what is given by its name. A value that has no literal is shown by its name, as a variable.
    """

    def show(name: str, value: Any) -> str:
        if isinstance(value, str | os.PathLike):
            return json.dumps(_public(value), ensure_ascii=False)
        return repr(value) if isinstance(value, bool | int | float | dict | None) else name

    words = [show(*pair) for pair in given] + [f"{name}={show(name, value)}" for name, value in named.items()]
    return f"{function}({', '.join(words)})"


def _public(value: Any) -> str:
    """A value as text; of a path, the last part."""
    text = str(value)
    with contextlib.suppress(OSError):  # a text is longer than names may be
        return Path(text).name if Path(text).is_absolute() or Path(text).exists() else text
    return text


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
    if typing.get_origin(alternatives[0]) is list:
        return {**settings, **_argument(option, alternatives[0])}
    # A field of several types, such as "66M" or 0.6, stays text; its dataclass parses it.
    return {**settings, "type": str if str in alternatives else alternatives[0]}
