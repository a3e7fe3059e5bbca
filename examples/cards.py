"""Renders the pages in model_cards/: one for each of the paper's shapes, and those of results whose data is there.

    python examples/cards.py

Given the folder of a result, its page is rendered as well, and its data (no weights) kept beside it as record.json:

    python examples/cards.py --result pruned
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
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
            write_record(result.measured() if arguments.latency else result, output / arguments.name)
        for record in sorted(output.glob(f"*/{PAGE_DATA}")):
            write_record(read_record(record.parent), record.parent)
    sys.stdout.write(f"Wrote {len(list(output.glob('*/README.md')))} pages to {output}\n")


if __name__ == "__main__":
    main()
