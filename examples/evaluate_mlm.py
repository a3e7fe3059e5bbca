"""Measures a masked language model on held-out text: loss, accuracy, pseudo-perplexity.

    accelerate launch examples/evaluate_mlm.py

Without arguments: the small English BERT beside it, on a held-out novel. Of another model and text:

    accelerate launch examples/evaluate_mlm.py --model pruned --text my_text.txt --output-dir measured
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from schubert_hf.cli import command_line, parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.evaluation.language_model import evaluate_model
from schubert_hf.evaluation.loading import load_tokenizer
from schubert_hf.evaluation.results import FILE, Results, describe_run
from schubert_hf.report import print_results
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import base_model, source
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).parent / "default"
ROOT = DEFAULT.parent.parent


@dataclass
class Arguments:
    """Which model, on which text."""

    model: str = option(str(DEFAULT / "model"), "A BERT or SchuBERT with a masked-LM head.")
    text: str = option(
        str(DEFAULT / "text" / "valid.txt"), "Held-out text: a file, a folder, or a dataset on the Hub."
    )
    output_dir: str | None = option(None, "Folder for results.json. Default: none is written.")
    max_length: int = option(128, "Word pieces per sentence pair.")
    batch_size: int = option(32, "Examples per process and forward pass.")
    examples: int = option(1000, "Sentence pairs, at most.")
    scored_examples: int = option(100, "Of these, how many are used for the pseudo-perplexity.")
    seed: int = option(0, "Seed of the masks.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")


def main() -> None:
    (arguments,) = parse("Measures a masked language model.", Arguments)
    with script(arguments.threads) as accelerator:
        model = load_for_pretraining(arguments.model, dtype=torch.float32)
        description = {**base_model(arguments.model, root=ROOT), "parameters": model.config.num_parameters()}
        folder = Path(arguments.output_dir) if arguments.output_dir is not None else None
        results = Results(description)
        if folder is not None:
            results = Results.open(folder, description)
        found = evaluate_model(
            model,
            dataset=arguments.text,
            tokenizer=load_tokenizer(arguments.model, model.config),
            max_length=arguments.max_length,
            batch_size=arguments.batch_size,
            examples=arguments.examples,
            scored_examples=arguments.scored_examples,
            seed=arguments.seed,
            accelerator=accelerator,
        )
        text = source(arguments.text, root=ROOT)
        command = command_line("accelerate launch examples/evaluate_mlm.py", arguments)
        settings = {"max_length": arguments.max_length, **found.to_json()}
        run = describe_run(accelerator, command, settings, text)
        results = results.updated([found.to_evaluation(text["name"], run)])
        if accelerator.is_main_process:
            print_results(results)
            if folder is not None:
                results.write(folder / FILE)


if __name__ == "__main__":
    main()
