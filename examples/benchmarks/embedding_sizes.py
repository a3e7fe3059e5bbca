"""What an embedding size of its own, and a smaller vocabulary, bring to a sentence encoder of which little may remain.

    python examples/benchmarks/embedding_sizes.py --text TEXT --eval-text OTHER --squad dev-v1.1.json

Every target is a share of all parameters, those of the words that go included. It is met with and without e among the
dimensions, with all words and with fewer; nothing is trained unless `--steps` asks for it. Figures are those of
`schubert evaluate`, milliseconds and megabytes those of `schubert bench`.

A cell is a folder in `--output-dir`: what is there is not made again, and what cannot be reached says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from study.cells import finished, settings_of
from study.tables import markdown

import schubert_hf
from schubert_hf.bench.comparing import compare
from schubert_hf.cli import command_line, parse
from schubert_hf.cost import BudgetError
from schubert_hf.encoders.carrying import open_library
from schubert_hf.encoders.evaluating import Embedded, HeldOut, compare_encoders
from schubert_hf.encoders.kinds import SENTENCE
from schubert_hf.pruning.config import DEFAULT, PruningConfigError
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import describe_machine, environment
from schubert_hf.run.session import CHECKPOINTS
from schubert_hf.training.loop_config import option

FIGURES = "figures.json"
COLUMNS = {  # title -> where a cell's figures have it
    "cosine": ("text", "cosine"),
    "rank correlation": ("text", "rank_correlation"),
    "neighbours kept": ("text", "neighbours"),
    "SQuAD MRR@10": ("squad", "mrr@10"),
}
SIZES = {f"{DEFAULT}e": "with e", DEFAULT: "without"}


@dataclass
class Arguments:
    """What is pruned, to which sizes, and what it is measured on."""

    model: str = option("sentence-transformers/all-MiniLM-L6-v2", "A sentence encoder: a folder or a name on the Hub.")
    text: str = option("", "Text that it is pruned on: a file or folder.")
    eval_text: str = option("", "Text that nothing was pruned on.")
    squad: str | None = option(None, "A file in SQuAD's layout.")
    max_questions: int | None = option(None, "Questions of it, at most. Default: all.")
    targets: str = option("75,60,45,30,20", "Percent of all parameters that remain.")
    dimensions: str = option(",".join(SIZES), "As `schubert prune --dimensions`, one or several.")
    vocabulary: str = option("all,16000", "Words, as `schubert prune --vocabulary`, or all; one or several.")
    steps: int = option(0, "Steps of the recovery.")
    calibration_examples: int | None = option(None, "As `schubert prune --calibration-examples`.")
    max_length: int = option(128, "Word pieces per span.")
    seed: int = option(0, "Seed of everything.")
    output_dir: str = option("runs/embedding_sizes", "Folder for models, figures and the table.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")

    def settings(self) -> dict[str, Any]:
        """What decides a cell beside its name; files by name and hash."""
        names = ("steps", "calibration_examples", "max_length", "seed", "max_questions")
        files = ("model", "text", "eval_text", "squad")
        return settings_of(self, names, files)

    def cells(self) -> list[tuple[str, str, str]]:
        """Target, dimensions and vocabulary of each."""
        targets, kinds, words = (x.split(",") for x in (self.targets, self.dimensions, self.vocabulary))
        return [(target, kind, number) for target in targets for number in words for kind in kinds]


def main() -> None:
    (arguments,) = parse("Embedding sizes and vocabularies of a sentence encoder.", Arguments)
    with script(arguments.threads) as accelerator:
        if not (arguments.text and arguments.eval_text):
            raise PruningConfigError("Give `--text` to prune on, and `--eval-text` to measure on.")
        output, settings, found = Path(arguments.output_dir), arguments.settings(), []
        squad = Path(arguments.squad) if arguments.squad else None
        held_out = HeldOut.read(arguments.eval_text, squad, None, questions=arguments.max_questions)
        dense = open_library(SENTENCE, arguments.model)
        embedded = cache(lambda: Embedded.by(dense, held_out))  # only where a cell is made
        for target, dimensions, words in arguments.cells():
            folder = output / f"{target}-{dimensions}-{words}"
            if (cell := finished(folder / FIGURES, settings)) is None:
                cell = {"target": target, "dimensions": dimensions, "vocabulary": words, "settings": settings}
                began = time.monotonic()
                try:
                    make(arguments, *(target, dimensions, words), folder)
                except BudgetError as error:
                    cell["unreachable"] = str(error)
                else:
                    encoder = open_library(SENTENCE, str(folder))
                    own = Embedded.by(encoder, held_out)
                    cell["figures"] = compare_encoders(own, embedded(), held_out, dense.similarity)
                    cell["parameters"] = sum(x.numel() for x in encoder.parameters())
                    cell["embedding_size"] = encoder[0].model.config.embedding_size
                cell |= {"seconds": round(time.monotonic() - began), **environment(accelerator)}
                cell["command"] = command_line("python examples/benchmarks/embedding_sizes.py", arguments)
                write_json(folder / FIGURES, cell)
                print(f"{folder.name}: {json.dumps(cell.get('figures', 'not reachable'))}", flush=True)
            found.append((folder, cell))
        folders = [arguments.model, *(str(folder) for folder, cell in found if "figures" in cell)]
        timed = compare(folders, backends=["torch"], seq_lens=(arguments.max_length,), memory=False).measurements
        times = {name: (one.median, one.weights / 1e6) for name, one in zip(folders, timed, strict=True)}
        (output / "table.md").write_text(table(arguments.model, found, times), encoding="utf-8")
        print((output / "table.md").read_text(encoding="utf-8"))


def make(arguments: Arguments, target: str, dimensions: str, words: str, folder: Path) -> None:
    """Prunes and trims in one go; raises `BudgetError` where the target is out of reach."""
    schubert_hf.prune(
        arguments.model,
        f"{target}%",
        text=arguments.text,
        dimensions=dimensions,
        vocabulary=None if words == "all" else words,
        recovery_steps=arguments.steps,
        calibration_examples=arguments.calibration_examples,
        max_length=arguments.max_length,
        seed=arguments.seed,
        output_dir=folder,
        resume=(folder / CHECKPOINTS).exists(),
        report_to="none",
        threads=arguments.threads,
    )


def table(
    model: str, found: Sequence[tuple[Path, Mapping[str, Any]]], times: Mapping[str, tuple[float, float]]
) -> str:
    """The cells in Markdown, the dense model first, and what they were made by."""
    measured = [cell["figures"] for _, cell in found if "figures" in cell]
    titles = [title for title, (data, name) in COLUMNS.items() if any(name in x.get(data, {}) for x in measured)]
    head = ["target", "words", "embeddings", "e", "parameters", *titles, "ms", "MB", "minutes"]
    rows = [head, ["---:"] * len(head)]
    rows.append(["dense", *[""] * (len(head) - 4), *(f"{value:.1f}" for value in times[model]), ""])
    for folder, cell in found:
        row = [f"{cell['target']} %", cell["vocabulary"], SIZES.get(cell["dimensions"], cell["dimensions"])]
        if "figures" not in cell:
            rows.append([*row, *["not reachable", *[""] * (len(head) - 4)]])
            continue
        values = [cell["figures"].get(data, {}).get(name) for data, name in map(COLUMNS.__getitem__, titles)]
        row += [str(cell["embedding_size"]), f"{cell['parameters'] / 1e6:.1f}M"]
        row += ["" if value is None else f"{value:.3f}" for value in values]
        rows.append([*row, *(f"{value:.1f}" for value in times[str(folder)]), f"{cell['seconds'] / 60:.0f}"])
    last = found[-1][1]
    return f"{markdown(rows)}\n`{last['command']}`; {describe_machine(last['machine'])}.\n"


if __name__ == "__main__":
    main()
