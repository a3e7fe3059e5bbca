"""Makes a reranker from a sentence encoder and questions with their paragraphs, and compares rerankers.

    python examples/benchmarks/reranker.py --encoder all-MiniLM-L6-v2 --train train-v1.1.json --dev dev-v1.1.json

trains `reranker/model` to find the sentence that answers a question among others which the encoder finds similar, by
the listwise loss of sentence-transformers. `reranker/pairs.jsonl` has questions with candidates and no labels, to
prune the reranker on:

    schubert prune reranker/model --text reranker/pairs.jsonl --pair-columns question,sentence --output-dir small
    python examples/benchmarks/reranker.py --encoder all-MiniLM-L6-v2 --dev dev-v1.1.json --rerankers small

Each of them ranks, for every question of `--dev`, those twenty sentences of all its paragraphs that the encoder finds
most similar. MRR@10 is the mean of 1 / rank of the sentence that has the answer, 0 where it is not among the ten.
`ACCELERATE_MIXED_PRECISION=bf16` halves the time on a CPU with AVX512-BF16.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import ListNetLoss
from sentence_transformers.util import semantic_search
from study.tables import markdown
from torch import Tensor

from schubert_hf.cli import parse
from schubert_hf.data.pairs import split_sentences
from schubert_hf.evaluation.evenly import evenly
from schubert_hf.evaluation.retrieval import TOP
from schubert_hf.evaluation.squad_data import read_squad
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.run.processes import script
from schubert_hf.training.loop_config import option

CANDIDATES = 20  # that are ranked
WRONG = 3  # sentences beside the right one in training: from its paragraph, like it, or any
SHARPNESS, BONUS = 20.0, 5.0  # the wanted scores: the encoder's cosine times this, and more for the right sentence
MAX_LENGTH = 72  # word pieces of a question and a sentence
WARM_UP = 100  # steps


@dataclass
class Arguments:
    """Which encoder and questions, how long, and what is compared."""

    encoder: str = option(
        "sentence-transformers/all-MiniLM-L6-v2", "A sentence encoder: a folder or a name on the Hub."
    )
    train: str = option("", "Files in SQuAD's layout, with commas between, to train on. Default: nothing is trained.")
    dev: str = option("", "A file in SQuAD's layout to compare on.")
    rerankers: str = option("", "Folders of cross-encoders to compare besides, with commas between.")
    steps: int = option(1500, "Steps of the training.")
    batch_size: int = option(16, "Questions per step.")
    learning_rate: float = option(1e-4, "Peak learning rate.")
    questions: int = option(500, "Of `--dev`, at most, spread evenly.")
    seed: int = option(0, "Of everything.")
    output_dir: str = option("reranker", "Folder for the model and its pairs.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")

    def __post_init__(self) -> None:
        if not self.dev:
            raise PruningConfigError("`dev` is missing. Give a file in SQuAD's layout, such as dev-v1.1.json.")


class Questions(NamedTuple):
    """Questions and all sentences of their paragraphs.

    Attributes:
        asked: the questions.
        sentences: of all paragraphs, each once.
        right: the number of the sentence in which each question's first answer begins.
        near: the numbers of the other sentences of its paragraph.
    """

    asked: list[str]
    sentences: list[str]
    right: list[int]
    near: list[list[int]]

    @classmethod
    def read(cls, paths: Sequence[Path], most: int | None = None) -> Questions:
        """From files in SQuAD's layout; questions without an answer are left out.

        Raises:
            EvaluationDataError: see `read_squad`.
        """
        rows = [row for path in paths for row in read_squad(path) if row["answers"]["text"]]
        number: dict[str, int] = {}
        asked, right, near = [], [], []
        parts: dict[str, list[str]] = {}
        for row in rows:  # all paragraphs are searched, whichever questions are asked
            context = row["context"]
            parts.setdefault(context, split_sentences(context))
            for sentence in parts[context]:
                number.setdefault(sentence, len(number))
        for place in evenly(len(rows), most):
            row = rows[place]
            found, own = parts[row["context"]], right_one(row["context"], row["answers"]["answer_start"][0])
            asked.append(row["question"].strip())
            right.append(number[found[own]])
            near.append([number[sentence] for sentence in found if number[sentence] != right[-1]])
        return cls(asked, list(number), right, near)


def right_one(paragraph: str, start: int) -> int:
    """The number of the sentence that holds a paragraph's character `start`."""
    return max(0, len(split_sentences(paragraph[: start + 1])) - 1)


def main() -> None:
    (arguments,) = parse("Makes a reranker, and compares rerankers.", Arguments)
    with script(arguments.threads):
        encoder, output = SentenceTransformer(arguments.encoder), Path(arguments.output_dir)
        folders = [name for name in arguments.rerankers.split(",") if name]
        if arguments.train:
            if not (output / "model" / "config.json").exists():
                make(arguments, encoder, output)
            folders.insert(0, str(output / "model"))
        held_out = Questions.read([Path(arguments.dev)], arguments.questions)
        candidates = search(*embed(encoder, held_out))
        rows = [["ranked by", f"MRR@{TOP}"], [":---", "---:"]]
        rows.append(["the encoder", f"{mean_reciprocal_rank(held_out.right, candidates):.3f}"])
        for folder in dict.fromkeys(folders):
            ranked = rerank(CrossEncoder(folder, trust_remote_code=True), held_out, candidates)
            rows.append([folder, f"{mean_reciprocal_rank(held_out.right, ranked):.3f}"])
        print(markdown(rows))


def embed(encoder: Any, questions: Questions) -> tuple[Tensor, Tensor]:
    """Embeddings of the questions and of the sentences, (texts, width) each."""
    encode = partial(encoder.encode, convert_to_tensor=True)
    return encode(questions.asked), encode(questions.sentences)


def search(asked: Tensor, sentences: Tensor) -> list[list[int]]:
    """The numbers of the sentences that are most similar to each question, the most similar first."""
    hits = semantic_search(asked, sentences, top_k=CANDIDATES)
    return [[int(hit["corpus_id"]) for hit in found] for found in hits]


def pair(questions: Questions, candidates: list[list[int]]) -> list[tuple[str, str]]:
    """Each question with each of its candidates, in their order."""
    return [
        (question, questions.sentences[number])
        for question, found in zip(questions.asked, candidates, strict=True)
        for number in found
    ]


def rerank(reranker: CrossEncoder, questions: Questions, candidates: list[list[int]]) -> list[list[int]]:
    """The candidates in the order of their scores by a reranker."""
    scores = iter(reranker.predict(pair(questions, candidates)).tolist())
    scored = [[(-next(scores), number) for number in found] for found in candidates]
    return [[number for _, number in sorted(found)] for found in scored]


def mean_reciprocal_rank(right: Sequence[int], ranked: Sequence[list[int]]) -> float:
    """MRR@10 of sentences in the order in which they are ranked."""
    first = [found[:TOP] for found in ranked]
    return sum(
        1 / (1 + found.index(wanted)) if wanted in found else 0.0 for wanted, found in zip(right, first, strict=True)
    ) / len(right)


def make(arguments: Arguments, encoder: Any, output: Path) -> None:
    """Trains the reranker, and writes it and the pairs without labels.

    Raises:
        PruningConfigError: there are fewer sentences than a list to rank has.
    """
    questions = Questions.read([Path(name) for name in arguments.train.split(",")])
    if (known := len(questions.sentences)) <= WRONG:
        raise PruningConfigError(f"`train` has {known} different sentences; a list to rank takes {1 + WRONG} of them.")
    embeddings = embed(encoder, questions)
    candidates = search(*embeddings)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for question, sentence in pair(questions, candidates):
            file.write(json.dumps({"question": question, "sentence": sentence}) + "\n")
    length = min(MAX_LENGTH, encoder.max_seq_length)
    reranker = CrossEncoder(arguments.encoder, num_labels=1, max_length=length)
    number, rng = arguments.steps * arguments.batch_size, random.Random(arguments.seed)
    examples = lists(questions, embeddings, candidates, number, rng)
    with tempfile.TemporaryDirectory() as scratch:
        CrossEncoderTrainer(
            model=reranker,
            args=CrossEncoderTrainingArguments(
                output_dir=scratch,
                max_steps=arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
                warmup_steps=WARM_UP,
                save_strategy="no",
                dataloader_pin_memory=torch.cuda.is_available(),
                report_to="none",
                seed=arguments.seed,
            ),
            train_dataset=examples,
            loss=ListNetLoss(reranker, mini_batch_size=arguments.batch_size * (1 + WRONG)),
        ).train()
    reranker.save_pretrained(str(output / "model"))


def lists(
    questions: Questions,
    embeddings: tuple[Tensor, Tensor],
    candidates: list[list[int]],
    number: int,
    rng: random.Random,
) -> Dataset:
    """So many lists to rank: a question, its sentence and wrong ones, and the scores that are wanted of them."""
    asked, every = embeddings
    order: list[int] = []
    while len(order) < number:
        order += rng.sample(range(len(questions.asked)), len(questions.asked))
    columns: dict[str, list[Any]] = {"question": [], "sentences": [], "labels": []}
    for place in order[:number]:
        right, similar = questions.right[place], candidates[place]
        chosen = [right]
        while len(chosen) <= WRONG:
            kinds = (questions.near[place] or similar, similar, similar, range(len(questions.sentences)))
            one = rng.choice(rng.choice(kinds))
            if one not in chosen:
                chosen.append(one)
        wanted = SHARPNESS * (every[chosen] @ asked[place])
        wanted[0] += BONUS
        columns["question"].append(questions.asked[place])
        columns["sentences"].append([questions.sentences[one] for one in chosen])
        columns["labels"].append(wanted.tolist())
    return Dataset.from_dict(columns)


if __name__ == "__main__":
    main()
