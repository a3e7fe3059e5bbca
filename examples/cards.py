"""Renders the pages in model_cards/: one for each of the paper's shapes, and those of results whose data lies there.

    python examples/cards.py

With the folder of a result its data (no weights) is kept as record.json beside its page, and rendered too:

    python examples/cards.py --result pruned
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.hub.cards import PAGE_DATA, facts_of, read_record, write_preset, write_record
from schubert_hf.presets import preset_names


@dataclass
class Arguments:
    """What to render, and where to."""

    output: str = field(default="model_cards", metadata={"help": "Folder for the pages."})
    result: str | None = field(
        default=None, metadata={"help": "Folder of a pruned model, whose page is rendered too."}
    )
    name: str = field(default="schubert-small-english", metadata={"help": "What that page calls the model."})
    latency: bool = field(default=True, metadata={"help": "Measure the latency of --result, unless that was done."})


def main() -> None:
    (arguments,) = parse("Renders the pages in model_cards/.", Arguments)
    output = Path(arguments.output)
    with one_line_errors():
        for preset in preset_names():
            if preset.startswith("schubert-"):
                write_preset(preset, output / preset)
        if arguments.result is not None:
            write_record(facts_of(Path(arguments.result), measured=arguments.latency), output / arguments.name)
        for record in sorted(output.glob(f"*/{PAGE_DATA}")):
            write_record(read_record(record.parent), record.parent)
    sys.stdout.write(f"Wrote {len(list(output.glob('*/README.md')))} pages to {output}\n")


if __name__ == "__main__":
    main()
