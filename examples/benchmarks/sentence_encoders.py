"""Compares ways to make a sentence encoder half as large, on the same text and for as many steps.

    python examples/benchmarks/sentence_encoders.py --text TEXT --eval-text OTHER --squad dev-v1.1.json --mrpc MRPC

`auto` is ours; `uniform` and `layers` are cut otherwise and trained as ours is; `sentence-transformers` drops every
second layer and distils by its own recipe; `model2vec` has one vector per word piece. Half is that of the encoder's
FLOPs; `layers`, half of them, has one percent more, those of the pooler. Figures are those of `schubert evaluate`;
milliseconds are those of `encode`, of one text of `--max-length` word pieces, all models in turns.

A row is a folder in `--output-dir`: what is there is not made again, and what was stopped goes on. The static
embeddings need `pip install model2vec[distill]`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from study.cells import finished, settings_of
from study.quality_picture import Mark, draw_quality
from study.sentence_peers import drop_layers, make_static
from study.tables import markdown

import schubert_hf
from schubert_hf.cli import command_line, parse
from schubert_hf.encoders.carrying import open_library
from schubert_hf.encoders.evaluating import Embedded, HeldOut, compare_encoders
from schubert_hf.encoders.kinds import SENTENCE
from schubert_hf.latency.timing import quartiles
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import describe_machine, environment
from schubert_hf.run.session import CHECKPOINTS
from schubert_hf.training.loop_config import option

DENSE = "dense"
OURS = ("auto", "uniform", "layers")
RECIPE, STATIC = "sentence-transformers", "model2vec"
ROWS = (*OURS, RECIPE, STATIC)
NAMES = {  # in the picture
    DENSE: "dense",
    "auto": "schubert_hf",
    "uniform": "the same width everywhere",
    "layers": "every second layer, trained as ours",
    RECIPE: "every second layer, sentence-transformers",
    STATIC: "model2vec",
}
HALF, MORE = 0.5, {"layers": 0.51}  # of the FLOPs; half of the layers and the pooler are a little more
TURNS = 30
SAVE_STEPS = 100
FIGURES = "figures.json"
COLUMNS = {  # title -> where a row's figures have it
    "cosine": ("text", "cosine"),
    "rank correlation": ("text", "rank_correlation"),
    "neighbours kept": ("text", "neighbours"),
    "SQuAD MRR@10": ("squad", "mrr@10"),
    "with stored vectors": ("squad", "stored mrr@10"),
    "MRPC precision": ("mrpc", "average precision"),
}


@dataclass
class Arguments:
    """What is compared, and on what."""

    model: str = option("sentence-transformers/all-MiniLM-L6-v2", "A sentence encoder: a folder or a name on the Hub.")
    text: str = option("", "Text that all are made from: a file or folder.")
    eval_text: str = option("", "Text that nothing was made from.")
    squad: str | None = option(None, "A file in SQuAD's layout.")
    max_questions: int | None = option(None, "Of these, at most, against all paragraphs. Default: all.")
    mrpc: str | None = option(None, "Folder with the official dev.tsv of MRPC.")
    rows: str = option(",".join(ROWS), f"Of {', '.join(ROWS)}.")
    steps: str = option("0,200", "Steps of the recovery, one run for each.")
    rounds: int = option(1, "Rounds that they are split into, for our methods.")
    batch_size: int = option(32, "Spans per step.")
    max_length: int = option(128, "Word pieces per span.")
    seed: int = option(0, "Seed of everything.")
    output_dir: str = option("runs/sentence_encoders", "Folder for models, figures and the table.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")

    def __post_init__(self) -> None:
        if unknown := [name for name in self.rows.split(",") if name not in ROWS]:
            raise PruningConfigError(f"`rows` has {', '.join(unknown)}; allowed is {', '.join(ROWS)}.")

    def settings(self) -> dict[str, Any]:
        """What decides a row beside its name and steps; files by name and hash."""
        names = ("rounds", "batch_size", "max_length", "max_questions", "seed")
        files = ("model", "text", "eval_text", "squad", "mrpc")
        return settings_of(self, names, files)


def main() -> None:
    (arguments,) = parse("Sentence encoders of half the size, made in different ways.", Arguments)
    with script(arguments.threads) as accelerator:
        if not (arguments.text and arguments.eval_text):
            raise PruningConfigError("Give `--text` to make encoders from, and `--eval-text` to measure them on.")
        output, settings = Path(arguments.output_dir), arguments.settings()
        squad, mrpc = (Path(name) if name else None for name in (arguments.squad, arguments.mrpc))
        held_out = HeldOut.read(arguments.eval_text, squad, mrpc, questions=arguments.max_questions)
        dense = open_library(SENTENCE, arguments.model)
        embedded = cache(lambda: Embedded.by(dense, held_out))  # only where a row is made
        cells, folders = [], []
        for row, steps in plan(arguments):
            folder = output / f"{row}-{steps}"
            if (cell := finished(folder / FIGURES, settings)) is None:
                began = time.monotonic()
                if row != DENSE:
                    make(arguments, row, steps, folder)
                seconds = round(time.monotonic() - began)
                encoder = dense if row == DENSE else open_library(SENTENCE, str(folder))
                cell = {"row": row, "steps": steps, "seconds": seconds, "settings": settings}
                own = embedded() if row == DENSE else Embedded.by(encoder, held_out)
                cell |= {"figures": compare_encoders(own, embedded(), held_out, dense.similarity)}
                cell |= {"parameters": sum(x.numel() for x in encoder.parameters()), **environment(accelerator)}
                cell["command"] = command_line("python examples/benchmarks/sentence_encoders.py", arguments)
                write_json(folder / FIGURES, cell)
                print(f"{row}, {steps} steps, {seconds} s: {json.dumps(cell['figures'])}", flush=True)
            cells.append(cell)
            folders.append(arguments.model if row == DENSE else str(folder))
        times = time_encoders(folders, arguments.max_length)
        (output / "table.md").write_text(table(cells, times), encoding="utf-8")
        draw(cells, times, output / "quality.png")
        print((output / "table.md").read_text(encoding="utf-8"))


def plan(arguments: Arguments) -> list[tuple[str, int]]:
    """Rows and their steps, the dense model first; static embeddings take no steps."""
    wanted = [(row, int(steps)) for steps in arguments.steps.split(",") for row in arguments.rows.split(",")]
    return list(dict.fromkeys([(DENSE, 0), *((row, 0 if row == STATIC else steps) for row, steps in wanted)]))


def make(arguments: Arguments, row: str, steps: int, folder: Path) -> None:
    """Makes the encoder of a row in `folder`."""
    shared: dict[str, Any] = {name: getattr(arguments, name) for name in ("batch_size", "max_length", "seed")}
    if row == STATIC:
        make_static(arguments.model).save(str(folder))
    elif row == RECIPE:
        drop_layers(arguments.model, arguments.text, steps=steps, **shared).save(str(folder))
    else:
        rounds = arguments.rounds if steps else 1
        schubert_hf.prune(
            arguments.model,
            MORE.get(row, HALF),
            text=arguments.text,
            cost="flops",
            method=row,
            rounds=rounds,
            recovery_steps=steps // rounds,
            output_dir=folder,
            save_steps=SAVE_STEPS,
            resume=(folder / CHECKPOINTS).exists(),
            report_to="none",
            threads=arguments.threads,
            **shared,
        )


def time_encoders(folders: Sequence[str], length: int) -> list[float]:
    """Milliseconds of `encode` of one text that fills the length, the lower quartile of turns in changing order."""
    encoders = [open_library(SENTENCE, folder) for folder in folders]
    text = "word " * (length - 2)  # and two special tokens
    times: list[list[float]] = [[] for _ in encoders]
    for turn in range(TURNS):
        for place in random.Random(turn).sample(range(len(encoders)), len(encoders)):
            began = time.perf_counter()
            encoders[place].encode(text, show_progress_bar=False)
            times[place].append(1000 * (time.perf_counter() - began))
    return [quartiles(values[1:])[0] for values in times]


def found(cell: Mapping[str, Any], title: str) -> float | None:
    data, name = COLUMNS[title]
    figures: Mapping[str, float] = cell["figures"].get(data, {})
    return figures.get(name)


def table(cells: Sequence[Mapping[str, Any]], times: Sequence[float]) -> str:
    """The rows in Markdown, and what they were made by."""
    titles = [title for title in COLUMNS if any(found(cell, title) is not None for cell in cells)]
    rows = [["made by", "steps", "parameters", *titles, "ms", "minutes"], [":---", *["---:"] * (len(titles) + 4)]]
    for cell, milliseconds in zip(cells, times, strict=True):
        values = ["" if (value := found(cell, title)) is None else f"{value:.3f}" for title in titles]
        rows.append([cell["row"], str(cell["steps"]), f"{cell['parameters'] / 1e6:.1f}M", *values])
        rows[-1] += [f"{milliseconds:.1f}", f"{cell['seconds'] / 60:.0f}"]
    made = f"`{cells[-1]['command']}`; seed {cells[-1]['settings']['seed']}; {describe_machine(cells[-1]['machine'])}."
    return f"{markdown(rows)}\n{made}\n"


def draw(cells: Sequence[Mapping[str, Any]], times: Sequence[float], path: Path) -> None:
    """How well the order of similarities is kept, against milliseconds."""
    marks = []
    for cell, milliseconds in zip(cells, times, strict=True):
        value = found(cell, "rank correlation")
        assert value is not None
        marks.append(Mark(NAMES[cell["row"]], cell["steps"], milliseconds, value))
    quality = "rank correlation with the dense similarities"
    draw_quality(marks, quality, path, ours=NAMES["auto"], dense=NAMES[DENSE])


if __name__ == "__main__":
    main()
