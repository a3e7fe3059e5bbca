"""Training data made on the fly: what it takes of memory as the corpus grows, and how fast it is.

    python examples/benchmarks/data_scale.py --megabytes 10,1000

Writes corpora of these sizes, the documents of `--text` over and over in other orders, in files of at most 16 MB, and
reads each from its first document to its last in a process of its own: sentence pairs, masked and batched. Memory is
the process's resident set (on Linux), counted from after the first hundred batches. Then the same data feeds training,
to compare the loader's tokens per second with a step's; and a place is resumed. About 15 minutes per gigabyte on two
cores.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from study.tables import markdown
from transformers import AutoTokenizer

from schubert_hf.cli import parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.data.stream import MaskingCollator
from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.data.text import load_documents, stream_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.pruning.config import PruningConfig
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.run.provenance import describe_machine, machine
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import option
from schubert_hf.training.objective import PretrainingObjective

DEFAULT = Path(__file__).resolve().parents[1] / "default"
FILE_MB, MB = 16, 10**6
WARM = 100  # batches, after which a process has all its libraries and buffers
LOOK = 20  # batches between two looks at how far the files are read


@dataclass
class Arguments:
    """How much text, and for which model."""

    megabytes: str = option("10,100", "Sizes of the corpora, separated by commas.")
    model: str = option(str(DEFAULT / "model"), "A BERT: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text that the corpora repeat: a file or folder.")
    batch_size: int = option(32, "Examples per step.")
    max_length: int = option(128, "Word pieces per example.")
    steps: int = option(20, "Training steps that are timed; 0 for none.")
    read: str | None = option(None, "Read this corpus once and print what it took, as JSON.")


def main() -> None:
    (arguments,) = parse("Training data made on the fly: memory and speed.", Arguments)
    if arguments.read is not None:
        print(json.dumps(read_once(arguments)))
        return
    rows = [["text, MB", "examples", "tokens/s", "memory, MiB", "grown by, MiB"], ["---:"] * 5]
    with tempfile.TemporaryDirectory() as folder, one_line_errors():
        for size in map(int, arguments.megabytes.split(",")):
            corpus = Path(folder) / str(size)
            write_corpus(corpus, arguments.text, size)
            command = [sys.executable, __file__, *sys.argv[1:], "--read", str(corpus)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            memory = found["peak"] / 2**20, (found["peak"] - found["warm"]) / 2**20
            rows.append([f"{size:,}", f"{found['examples']:,}", f"{found['tokens_per_second']:,.0f}"])
            rows[-1] += [f"{mib:.0f}" for mib in memory]
            print(f"{size} MB: {found}", file=sys.stderr)
        print(f"{describe_machine(machine())}; batches of {arguments.batch_size} x {arguments.max_length}\n")
        print(markdown(rows))
        print(f"\nA place in {size:,} MB: {resume_seconds(arguments, corpus)}")
        if arguments.steps:
            print(f"Training: {training_speed(arguments, corpus):,.0f} tokens/s, its data included")


def write_corpus(folder: Path, text: str, megabytes: int) -> None:
    """The documents of a text over and over, every time in another order, in files of at most `FILE_MB`."""
    documents = list(load_documents(text)["text"])
    rng, left = random.Random(0), megabytes * MB
    folder.mkdir(parents=True)
    number = 0
    while left > 0:
        size = min(left, FILE_MB * MB)
        with (folder / f"part-{number:04d}.txt").open("w", encoding="utf-8") as stream:
            while size > 0:
                rng.shuffle(documents)
                for document in documents:
                    written = stream.write(document.strip() + "\n\n")
                    size, left = size - written, left - written
                    if size <= 0:
                        break
        number += 1


def open_pairs(arguments: Arguments, corpus: Path) -> tuple[StreamedPairs, MaskingCollator]:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    pairs = StreamedPairs(stream_documents(corpus), tokenizer, max_length=arguments.max_length)
    return pairs, MaskingCollator(tokenizer)


def read_once(arguments: Arguments) -> dict[str, Any]:
    """Reads every file to its end; gives examples, tokens per second and memory."""
    use_all_cores(make_accelerator())
    pairs, collator = open_pairs(arguments, Path(str(arguments.read)))
    tokens = examples = warm = number = 0
    began = time.perf_counter()
    while number <= WARM or pairs.state()["epoch"] == 0:
        for _ in range(LOOK):
            start = number * arguments.batch_size
            batch = collator([pairs[position] for position in range(start, start + arguments.batch_size)])
            tokens, examples = tokens + int(batch["attention_mask"].sum()), examples + len(batch["input_ids"])
            number += 1
            if number == WARM:
                warm = resident("VmRSS:")
    seconds = time.perf_counter() - began
    peak = resident("VmHWM:")
    return {"examples": examples, "tokens_per_second": tokens / seconds, "warm": warm, "peak": peak}


def resume_seconds(arguments: Arguments, corpus: Path) -> str:
    """How long it takes to the next batch, resumed and read from the beginning."""
    pairs, _ = open_pairs(arguments, corpus)
    size = sum(path.stat().st_size for path in corpus.iterdir())
    read = tokens = 0
    while 5 * tokens < min(size / 2, 20 * MB):  # some 20 MB into a large corpus
        tokens += len(pairs[read]["input_ids"])
        read += 1
    state, times = json.loads(json.dumps(pairs.state())), []
    expected = [pairs[read + number]["input_ids"] for number in range(arguments.batch_size)]
    for begin in (read, 0):
        again, _ = open_pairs(arguments, corpus)
        if begin:
            again.load_state([state])
        began = time.perf_counter()
        for position in range(begin, read):
            again[position]
        assert [again[read + number]["input_ids"] for number in range(arguments.batch_size)] == expected
        times.append(time.perf_counter() - began)
    return f"{times[0]:.2f} s resumed, {times[1]:.2f} s from the beginning (after {read:,} examples)"


def training_speed(arguments: Arguments, corpus: Path) -> float:
    """Tokens per second of recovery steps, fed by this data."""
    accelerator = make_accelerator()
    use_all_cores(accelerator)
    pairs, collator = open_pairs(arguments, corpus)
    objective = PretrainingObjective(load_for_pretraining(arguments.model, dtype=torch.float32))
    config = PruningConfig(batch_size=arguments.batch_size, recovery_steps=arguments.steps + 1).recovery_loop(1e-4)
    loop = TrainingLoop(accelerator, objective, objective.model.named_parameters(), config)
    loop.run(pairs, collator, stop=1)
    began = time.perf_counter()
    loop.run(pairs, collator)
    return arguments.steps * arguments.batch_size * arguments.max_length / (time.perf_counter() - began)


def resident(field: str) -> int:
    """Bytes that this process and its loader hold (`VmRSS:`), or the most they have held (`VmHWM:`)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
