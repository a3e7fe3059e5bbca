"""Renders the pages in model_cards/: one for each of the paper's shapes, and those of results whose data is there.

    python examples/cards.py

Given the folder of a result, its page is rendered as well, and its data (no weights) kept beside it as record.json:

    python examples/cards.py --result pruned

A result that was made from a folder does not know the name of its base on the Hub; `--base` gives it, on the
page and in the recorded command:

    python examples/cards.py --result small --name minilm-half --base sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.hub.errors import RecordError
from schubert_hf.hub.record import Record
from schubert_hf.hub.writing import PAGE_DATA, read_record, write_preset, write_record
from schubert_hf.presets import PRESETS


@dataclass
class Arguments:
    """What to render, and where to."""

    output: str = field(default="model_cards", metadata={"help": "Folder for the pages."})
    result: str | None = field(
        default=None, metadata={"help": "Folder of a pruned model, whose page is rendered as well."}
    )
    name: str = field(default="schubert-small-english", metadata={"help": "The model's name on that page."})
    base: str | None = field(
        default=None,
        metadata={"help": "Name on the Hub of the model that --result was pruned from, if from a folder."},
    )
    latency: bool = field(default=True, metadata={"help": "Measure the latency of --result, if it is not recorded."})


def main() -> None:
    (arguments,) = parse("Renders the pages in model_cards/.", Arguments)
    output = Path(arguments.output)
    with one_line_errors():
        for preset in PRESETS:
            if preset.startswith("schubert-"):
                write_preset(preset, output / preset)
        if arguments.result is not None:
            result = Record.of_folder(Path(arguments.result))
            if arguments.base is not None:
                result = with_base(result, arguments.base)
            write_record(result.measured() if arguments.latency else result, output / arguments.name)
        for record in sorted(output.glob(f"*/{PAGE_DATA}")):
            write_record(read_record(record.parent), record.parent)
    sys.stdout.write(f"Wrote {len(list(output.glob('*/README.md')))} pages to {output}\n")


def with_base(result: Record, name: str) -> Record:
    """The same, with its base known by its name on the Hub. The hash of the base's weights stays."""
    run = result.run
    if run is None:
        raise RecordError("`base` is that of a pruned model; `result` holds none. Leave `--base` out.")
    provenance = run["provenance"]
    command = re.sub(r"(\bprune |--model )[^-\s]\S*", rf"\g<1>{name}", provenance.get("command", ""), count=1)
    base = {**provenance["base_model"], "name": name, "hub": True}
    return replace(result, run={**run, "provenance": {**provenance, "base_model": base, "command": command}})


if __name__ == "__main__":
    main()
