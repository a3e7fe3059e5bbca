"""The command `schubert`: one file for each sub-command.

schubert prune MODEL --target SIZE --text TEXT
schubert inspect NAME-OR-FOLDER
schubert publish FOLDER ORGANISATION/NAME
schubert card FOLDER
schubert trim MODEL --vocabulary 99.9% --text TEXT
schubert evaluate FOLDER --text TEXT
schubert bench MODEL...
schubert export FOLDER --format onnx
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..cli import parse_command
from ..errors import one_line_errors
from ..run.progress import without_loading_bars
from ..run.provenance import versions
from .bench import Bench
from .card import Card
from .evaluate import Evaluate
from .export import Export
from .inspect import Inspect
from .prune import Prune
from .publish import Publish, print_published
from .trim import Trim

COMMANDS: dict[str, type[Any]] = {
    "prune": Prune,
    "trim": Trim,
    "evaluate": Evaluate,
    "bench": Bench,
    "inspect": Inspect,
    "publish": Publish,
    "card": Card,
    "export": Export,
}

__all__ = ["COMMANDS", "main", "print_published"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command. Errors caused by user input are printed as one line."""
    version = ", ".join(f"{name} {number}" for name, number in versions().items())
    description = (
        "Structured pruning of BERT models: prune a model, trim its vocabulary, evaluate, time and inspect it, export "
        "and publish it, render its card."
    )
    command, *settings = parse_command("schubert", description, COMMANDS, version, arguments)
    with one_line_errors(), without_loading_bars():
        command.run(*settings)
