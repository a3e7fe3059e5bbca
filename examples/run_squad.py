"""Fine-tunes any BERT or SchuBERT checkpoint on SQuAD v1.1 or v2.0 and evaluates it, or evaluates it as it is.

    accelerate launch examples/run_squad.py --model google-bert/bert-base-uncased --task squad

Data comes from the Hub, or from the official files: `--data FOLDER` with train-v1.1.json and dev-v1.1.json (v2.0 for
`--task squad_v2`). `--seeds 0,1,2` trains three times. Models lie in OUTPUT_DIR/TASK/seed-N, numbers with all that
repeats them in OUTPUT_DIR/results.json, beside those of run_glue.py for the same model. A run can be stopped at any
moment and goes on with `--resume`.

    accelerate launch examples/run_squad.py --model tuned/squad/seed-0 --evaluate-only --predictions answers
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schubert_hf.cli import command_line, parse
from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation.finetuning_config import FinetuningConfig
from schubert_hf.evaluation.loading import load_tokenizer
from schubert_hf.evaluation.runs import Runs, parse_seeds
from schubert_hf.evaluation.squad import SquadConfig, SquadEvaluation, open_squad
from schubert_hf.evaluation.squad_data import find_squad
from schubert_hf.report import print_results
from schubert_hf.run.checkpoint import write_json
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import base_model
from schubert_hf.training.loop_config import option

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Arguments:
    """Which model, on which version."""

    model: str = option("google-bert/bert-base-uncased", "A BERT or SchuBERT: a folder or a name on the Hub.")
    task: str = option("squad", "squad (v1.1) or squad_v2.")
    data: str | None = option(None, "Folder with the official files. Default: the Hub.")
    output_dir: str = option("tuned", "Folder for models and results.")
    seeds: str = option("0", "Seeds with commas between: one fine-tuning each.")
    max_train_examples: int | None = option(None, "Train on that many questions, at most.")
    max_eval_examples: int | None = option(None, "Evaluate on that many questions, at most.")
    predictions: str | None = option(
        None, "With --evaluate-only: folder for the answers (predictions.json) and the candidates (nbest.json)."
    )
    evaluate_only: bool = option(False, "Evaluate a fine-tuned checkpoint, train nothing.")
    resume: bool = option(False, "Go on with what lies in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")


def main() -> None:
    arguments, config, squad = parse("Fine-tunes and evaluates on SQuAD.", Arguments, FinetuningConfig, SquadConfig)
    with script(arguments.threads) as accelerator:
        if arguments.predictions is not None and not arguments.evaluate_only:
            raise EvaluationDataError("`predictions` is for `--evaluate-only`. Train first, then evaluate the model.")
        task = find_squad(arguments.task)
        tokenizer = load_tokenizer(arguments.model)
        runs = Runs(
            accelerator,
            arguments.model,
            base_model(arguments.model, root=ROOT),
            tokenizer,
            config,
            parse_seeds(arguments.seeds),
            Path(arguments.output_dir),
            command_line("accelerate launch examples/run_squad.py", arguments, config, squad),
        )
        with accelerator.main_process_first():
            examples = open_squad(
                task,
                tokenizer,
                squad,
                data=Path(arguments.data) if arguments.data else None,
                max_train_examples=arguments.max_train_examples,
                max_eval_examples=arguments.max_eval_examples,
                train=not arguments.evaluate_only,
            )
        results = runs.run([examples], evaluate_only=arguments.evaluate_only, resume=arguments.resume)
        if accelerator.is_main_process:
            if arguments.predictions is not None:
                assert isinstance(examples.evaluate, SquadEvaluation)
                write_answers(examples.evaluate, Path(arguments.predictions))
            print_results(results)
            print(f"\nSaved in {runs.output}. Add it to a model card: schubert card FOLDER --results {runs.output}")


def write_answers(evaluation: SquadEvaluation, folder: Path) -> None:
    """Answers and candidates, as the official scripts name them."""
    write_json(folder / "predictions.json", evaluation.predictions())
    write_json(folder / "null_odds.json", {answer.id: answer.null_difference for answer in evaluation.answers})
    write_json(folder / "nbest.json", {answer.id: answer.to_json() for answer in evaluation.answers})


if __name__ == "__main__":
    main()
