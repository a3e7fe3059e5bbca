"""The command `schubert`: look at a model, publish it, render its page.

schubert inspect NAME-OR-FOLDER
schubert publish FOLDER ORGANISATION/NAME
schubert card FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from .cli import parse
from .errors import one_line_errors
from .hub.errors import InspectError, PublishError, RecordError


def _place(text: str) -> Any:
    return field(metadata={"help": text, "positional": True})


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class Inspect:
    """Prints widths per layer, parameters and FLOPs by part, and what was removed against the base."""

    model: str = _place('A folder, a name on the Hub, or a preset like "schubert-66m".')
    base: str | None = _option(None, "What to compare with, given alike. Default: what the model was pruned from.")
    revision: str | None = _option(None, "Commit, branch or tag on the Hub.")
    json: bool = _option(False, "Print JSON.")
    plot: str | None = _option(None, "Draw the widths into this file: .png, .svg or .pdf.")

    def run(self) -> None:
        from .hub.looking import inspect

        found = inspect(self.model, base=self.base, revision=self.revision)
        if self.plot is not None:
            _draw(found, Path(self.plot))
        if self.json:
            _say(json.dumps(found.to_json(), indent=2))
        else:
            from .report import print_inspection

            print_inspection(found)


@dataclass
class Publish:
    """Puts a folder on the Hub, in one commit, with a page made from its data and the files that open it anywhere."""

    folder: str = _place("The folder of a pruned model.")
    name: str = _place('"organisation/name" on the Hub.')
    private: bool = _option(False, "Only you and your organisation see it.")
    overwrite_readme: bool = _option(False, "Replace a page that was written by hand.")
    license: str | None = _option(
        None, 'As the Hub calls it, e.g. "apache-2.0". Default: the base model\'s, where known.'
    )
    latency: bool = _option(True, "Measure the latency for the page.")
    message: str = _option("Publish with schubert_hf", "Title of the commit.")

    def run(self) -> None:
        from .hub.publishing import publish

        done = publish(
            self.folder,
            self.name,
            private=self.private or None,
            overwrite_readme=self.overwrite_readme,
            license=self.license,
            latency=self.latency,
            commit_message=self.message,
        )
        print_published(done)


@dataclass
class Card:
    """Renders the page of a folder again, from the data that lies in it: README.md, pictures, .eval_results."""

    folder: str = _place("The folder of a model.")
    name: str | None = _option(None, "What the page calls the model. Default: the folder's name.")
    license: str | None = _option(None, "As the Hub calls it. Default: the base model's, where known.")
    latency: bool = _option(True, "Measure the latency, where the folder has no latency.json.")
    results: list[str] = field(
        default_factory=list,
        metadata={"help": "Results to put onto the page: results.json of the evaluation scripts, or folders."},
    )
    base_results: list[str] = field(
        default_factory=list, metadata={"help": "The same of the dense model, to stand beside them."}
    )
    overwrite_readme: bool = _option(False, "Replace a page that was written by hand.")

    def run(self) -> None:
        from .hub.results import add_results
        from .hub.staging import README, handwritten_page, write_page

        folder = Path(self.folder)
        if not self.overwrite_readme and handwritten_page(folder) is not None:
            raise PublishError(f"`{folder / README}` was written by hand. Replace it with --overwrite-readme.")
        if self.results:
            add_results(folder, [Path(path) for path in self.results], [Path(path) for path in self.base_results])
        elif self.base_results:
            raise RecordError("`base_results` stand beside `results`. Give these, too.")
        write_page(folder, self.name or folder.resolve().name, license=self.license, latency=self.latency)
        _say(f"Wrote {folder / README}")


COMMANDS: dict[str, type[Any]] = {"inspect": Inspect, "publish": Publish, "card": Card}


def print_published(done: Any) -> None:
    """Says where a model is now, and how to open it."""
    _say(f"Published {len(done.files)} files: {done.url}")
    if done.kept_readme:
        _say("Its README.md was written by hand and stays; --overwrite-readme replaces it.")
    _say(f'    AutoModel.from_pretrained("{done.repo_id}", revision="{done.commit}", trust_remote_code=True)')


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; errors of bad input are one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        console = Console(stderr=bool(words) and words[0] not in ("-h", "--help"))
        console.print("usage: schubert COMMAND [--help]\n", markup=False)
        for name, command in COMMANDS.items():
            console.print(f"  {name:<9} {command.__doc__}", markup=False, highlight=False)
        raise SystemExit(2 if console.stderr or not words else 0)
    command = COMMANDS[words[0]]
    (parsed,) = parse(str(command.__doc__), command, arguments=words[1:], prog=f"schubert {words[0]}")
    with one_line_errors():
        parsed.run()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _draw(found: Any, path: Path) -> None:
    from .hub.plots import draw_widths

    try:
        draw_widths(found.shape, path, found.base)
    except (OSError, ValueError) as error:
        raise InspectError(
            f"`{path}` cannot be drawn: {error}. Give a file that ends in .png, .svg or .pdf."
        ) from error


if __name__ == "__main__":
    main()
