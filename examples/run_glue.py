"""Fine-tunes any BERT or SchuBERT checkpoint on tasks of GLUE and evaluates it, or evaluates it as it is.

    accelerate launch examples/run_glue.py --model google-bert/bert-base-uncased --task sst2

`--task paper` are the four of the schuBERT paper, `--task all` all nine. Data comes from the Hub, or from the official
files: `--data GLUE` with GLUE/SST-2/train.tsv and so on. `--seeds 0,1,2` trains three times. Models lie in
OUTPUT_DIR/TASK/seed-N, numbers with all that repeats them in OUTPUT_DIR/results.json; `schubert card FOLDER --results`
puts them on a model's page. A run can be stopped at any moment and goes on with `--resume`.

    accelerate launch examples/run_glue.py --model tuned/sst2/seed-0 --task sst2 --evaluate-only
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from schubert_hf.cli import command_line, parse
from schubert_hf.evaluation.finetuning_config import FinetuningConfig
from schubert_hf.evaluation.glue import open_glue
from schubert_hf.evaluation.loading import load_tokenizer
from schubert_hf.evaluation.runs import Runs, parse_seeds
from schubert_hf.evaluation.tasks import find_tasks
from schubert_hf.report import print_results
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import base_model
from schubert_hf.training.loop_config import option

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Arguments:
    """Which model, on which tasks."""

    model: str = option("google-bert/bert-base-uncased", "A BERT or SchuBERT: a folder or a name on the Hub.")
    task: str = option("paper", 'Tasks: names with commas between, "paper" or "all".')
    data: str | None = option(None, "Folder with the official files. Default: the Hub.")
    output_dir: str = option("tuned", "Folder for models and results.")
    seeds: str = option("0", "Seeds with commas between: one fine-tuning each.")
    max_length: int = option(128, "Word pieces per example.")
    max_train_examples: int | None = option(None, "Train on that many examples, at most.")
    max_eval_examples: int | None = option(None, "Evaluate on that many examples of a split, at most.")
    metrics: list[str] = field(
        default_factory=list, metadata={"help": "More metrics: names or scripts for `evaluate.load`."}
    )
    evaluate_only: bool = option(False, "Evaluate a fine-tuned checkpoint, train nothing.")
    resume: bool = option(False, "Go on with what lies in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")


def main() -> None:
    arguments, config = parse("Fine-tunes and evaluates on GLUE.", Arguments, FinetuningConfig)
    with script(arguments.threads) as accelerator:
        tasks = find_tasks(arguments.task)
        seeds = parse_seeds(arguments.seeds)
        tokenizer = load_tokenizer(arguments.model)
        runs = Runs(
            accelerator,
            arguments.model,
            base_model(arguments.model, root=ROOT),
            tokenizer,
            config,
            seeds,
            Path(arguments.output_dir),
            command_line("accelerate launch examples/run_glue.py", arguments, config),
        )
        with accelerator.main_process_first():
            opened = [
                open_glue(
                    task,
                    tokenizer,
                    data=Path(arguments.data) if arguments.data else None,
                    max_length=arguments.max_length,
                    max_train_examples=arguments.max_train_examples,
                    max_eval_examples=arguments.max_eval_examples,
                    train=not arguments.evaluate_only,
                    metrics=arguments.metrics,
                )
                for task in tasks
            ]
        results = runs.run(opened, evaluate_only=arguments.evaluate_only, resume=arguments.resume)
        if accelerator.is_main_process:
            print_results(results)
            print(f"\nSaved in {runs.output}. Add it to a model card: schubert card FOLDER --results {runs.output}")


if __name__ == "__main__":
    main()
