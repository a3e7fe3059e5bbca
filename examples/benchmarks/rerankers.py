"""Halves a reranker on text without labels, and counts how well it still finds the answers to questions.

    python examples/benchmarks/rerankers.py --train TRAIN.json --squad dev-v1.1.json --text TEXT

First a reranker is made: the sentence encoder `--encoder` with one score per pair, trained to tell the paragraph that
answers a question of `--train` from the most similar one that does not. Then half of its encoder's FLOPs go by each of
`--rows`, which are methods of the pruner, and the rest learns to score pairs made from `--text` as the dense reranker
does. All rerank the paragraphs of `--squad` that the encoder finds for a question; the measure is MRR@10.

A row is a folder in `--output-dir`: what is there is not made again, and what was stopped goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from study.cells import finished, settings_of
from study.tables import markdown

import schubert_hf
from schubert_hf.cli import command_line, parse
from schubert_hf.encoders.carrying import open_library
from schubert_hf.encoders.evaluating import evaluate_agreement
from schubert_hf.encoders.kinds import CROSS, SENTENCE
from schubert_hf.evaluation.retrieval import TOP, read_questions
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import describe_machine, environment
from schubert_hf.run.session import CHECKPOINTS
from schubert_hf.training.loop_config import option
from schubert_hf.training.precision import has_bfloat16

FIGURES = "figures.json"
DENSE, FOUND = "dense", "as they were found"
BATCH, RATE, WARM_UP = 16, 1e-4, 0.1  # of the dense reranker's training
LENGTH = 256  # word pieces of a question and a paragraph, at most
COLUMNS = {"MRR@10": "mrr@10", "rank correlation of scores": "logits"}


@dataclass
class Arguments:
    """What is made, and what it is measured on."""

    encoder: str = option(
        "sentence-transformers/all-MiniLM-L6-v2", "A sentence encoder: a folder or a name on the Hub."
    )
    train: str = option("", "A file in SQuAD's layout that the dense reranker learns from.")
    train_steps: int = option(200, "Steps of that.")
    squad: str = option("", "Another one, to rerank paragraphs of.")
    questions: int = option(300, "Questions of it, spread evenly.")
    candidates: int = option(20, "Paragraphs per question, those that the encoder finds most similar.")
    text: str = option("", "Text without labels that rerankers are pruned on: a file or folder.")
    eval_text: str = option("", "Text that nothing was pruned on, to compare scores on.")
    rows: str = option("auto,uniform,layers", "Methods of the pruner.")
    steps: str = option("0,150", "Steps of the recovery, one run for each.")
    batch_size: int = option(32, "Pairs per step.")
    max_length: int = option(128, "Word pieces per pair of the recovery.")
    seed: int = option(0, "Seed of everything.")
    output_dir: str = option("runs/rerankers", "Folder for rerankers, figures and the table.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")

    def settings(self) -> dict[str, Any]:
        """What decides a row beside its name and steps; files by name and hash."""
        names = ("train_steps", "questions", "candidates", "batch_size", "max_length", "seed")
        return settings_of(self, names, ("encoder", "train", "squad", "text", "eval_text"))


def main() -> None:
    (arguments,) = parse("Rerankers of half the size.", Arguments)
    with script(arguments.threads) as accelerator:
        if missing := [f"`--{name}`" for name in ("train", "squad", "text") if not getattr(arguments, name)]:
            raise PruningConfigError(f"Give {', '.join(missing)}; `--help` says what they are.")
        output, settings = Path(arguments.output_dir), arguments.settings()
        encoder = open_library(SENTENCE, arguments.encoder)
        asked = candidates(encoder, Path(arguments.squad), arguments.questions, arguments.candidates)
        dense = output / f"{DENSE}-0"
        if not (dense / "model.safetensors").exists():
            train(arguments, encoder).save(str(dense))
        rows = [(row, int(steps)) for steps in arguments.steps.split(",") for row in arguments.rows.split(",")]
        cells = [{"row": FOUND, "steps": 0, "figures": {"mrr@10": mean_reciprocal_rank(asked, None)}}]
        for row, steps in [(DENSE, 0), *rows]:
            folder = output / f"{row}-{steps}"
            if (cell := finished(folder / FIGURES, settings)) is None:
                began = time.monotonic()
                if row != DENSE:
                    halve(arguments, str(dense), row, steps, folder)
                cell = {"row": row, "steps": steps, "seconds": round(time.monotonic() - began), "settings": settings}
                reranker = open_library(CROSS, str(folder))
                cell["figures"] = {"mrr@10": mean_reciprocal_rank(asked, reranker)}
                if arguments.eval_text:
                    agreed = evaluate_agreement(str(folder), str(dense), arguments.eval_text)
                    cell["figures"] |= agreed["text"]
                cell |= {"parameters": sum(x.numel() for x in reranker.parameters()), **environment(accelerator)}
                cell["command"] = command_line("python examples/benchmarks/rerankers.py", arguments)
                write_json(folder / FIGURES, cell)
                print(f"{row}, {steps} steps: {cell['figures']}", flush=True)
            cells.append(cell)
        (output / "table.md").write_text(table(cells), encoding="utf-8")
        print((output / "table.md").read_text(encoding="utf-8"))


def candidates(encoder: Any, squad: Path, questions: int, most: int) -> list[tuple[str, list[str], int | None]]:
    """Question, its most similar paragraphs in that order, and which of them answers it; None: none of them."""
    asked, paragraphs, wanted = read_questions(squad, questions)
    similar = encoder.similarity(encoder.encode_query(asked), encoder.encode_document(paragraphs))
    found = similar.topk(min(most, len(paragraphs))).indices.tolist()
    return [
        (question, [paragraphs[place] for place in places], places.index(own) if own in places else None)
        for question, places, own in zip(asked, found, wanted, strict=True)
    ]


def mean_reciprocal_rank(asked: list[tuple[str, list[str], int | None]], reranker: Any) -> float:
    """MRR@10 of the paragraphs in the order of a reranker's scores; None: in the order that they have."""
    total = 0.0
    for question, paragraphs, own in asked:
        if own is None:
            continue
        rank = own + 1
        if reranker is not None:
            scores = reranker.predict([(question, one) for one in paragraphs], show_progress_bar=False)
            rank = int((scores >= scores[own]).sum())
        total += 1 / rank if rank <= TOP else 0
    return total / len(asked)


def train(arguments: Arguments, encoder: Any) -> Any:
    """A `CrossEncoder` that begins as the encoder, by the recipe of sentence-transformers for hard negatives."""
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    number = arguments.train_steps * BATCH // 2
    pairs: dict[str, list[Any]] = {"question": [], "paragraph": [], "label": []}
    for question, paragraphs, own in candidates(encoder, Path(arguments.train), number, 2):
        if own is not None:
            for place, paragraph in enumerate(paragraphs):
                for name, value in zip(pairs, (question, paragraph, float(place == own)), strict=True):
                    pairs[name].append(value)
    reranker = CrossEncoder(arguments.encoder, num_labels=1, max_length=LENGTH, device="cpu")
    CrossEncoderTrainer(
        model=reranker,
        args=CrossEncoderTrainingArguments(
            output_dir=str(Path(arguments.output_dir) / "training"),
            max_steps=arguments.train_steps,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=int(WARM_UP * arguments.train_steps),
            save_strategy="no",
            use_cpu=True,
            bf16=has_bfloat16(torch.device("cpu")),
            report_to="none",
            seed=arguments.seed,
        ),
        train_dataset=Dataset.from_dict(pairs),
        loss=BinaryCrossEntropyLoss(reranker),
    ).train()
    return reranker


def halve(arguments: Arguments, dense: str, row: str, steps: int, folder: Path) -> None:
    """Writes a reranker with half of the FLOPs into `folder`."""
    schubert_hf.prune(
        dense,
        0.5,
        text=arguments.text,
        cost="flops",
        method=row,
        recovery_steps=steps,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        seed=arguments.seed,
        output_dir=folder,
        resume=(folder / CHECKPOINTS).exists(),
        report_to="none",
        threads=arguments.threads,
    )


def table(cells: list[dict[str, Any]]) -> str:
    """The rows in Markdown, and what they were made by."""
    titles = [title for title, name in COLUMNS.items() if any(name in cell["figures"] for cell in cells)]
    rows = [["made by", "steps", "parameters", *titles, "minutes"], [":---", *["---:"] * (len(titles) + 3)]]
    for cell in cells:
        values = [cell["figures"].get(COLUMNS[title]) for title in titles]
        size = f"{cell['parameters'] / 1e6:.1f}M" if "parameters" in cell else ""
        minutes = f"{cell['seconds'] / 60:.0f}" if cell.get("seconds") else ""
        rows.append([cell["row"], str(cell["steps"]), size])
        rows[-1] += [*("" if value is None else f"{value:.3f}" for value in values), minutes]
    made = f"`{cells[-1]['command']}`; {describe_machine(cells[-1]['machine'])}."
    return f"{markdown(rows)}\n{made}\n"


if __name__ == "__main__":
    main()
