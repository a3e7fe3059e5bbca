"""Prunes a BERT to a budget, after schuBERT (Khetan & Karnin, ACL 2020): `--method schubert` is their Algorithm 1.

    accelerate launch examples/prune.py

Without arguments it takes the small English BERT that lies beside it to 60 % of its parameters, offline, in a few
minutes on two cores. The same for any BERT, from the Hub or from disk:

    accelerate launch examples/prune.py --model google-bert/bert-base-uncased --dataset wikitext --target 66M

`--recovery-steps 0 --rounds 1` trains nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.cli import command_line, one_line_errors, parse
from schubert_hf.commands import print_published
from schubert_hf.conversion import ConversionError, load_for_pretraining
from schubert_hf.hub.publishing import check_ready
from schubert_hf.provenance import base_model, source
from schubert_hf.report import print_report
from schubert_hf.training.environment import make_accelerator, use_all_cores
from schubert_hf.training.loop_config import option
from schubert_hf.training.output import check_output_folder
from schubert_hf.training.pairs import make_pairs
from schubert_hf.training.text import load_documents, split_documents

DEFAULT = Path(__file__).parent / "default"


@dataclass
class Arguments:
    """What to prune, on which text, and where to put it."""

    model: str = option(str(DEFAULT / "model"), "A BERT or SchuBERT: a folder or a name on the Hub.")
    dataset: str | None = option(None, "Text to train on: a dataset on the Hub.")
    dataset_config: str | None = option(None, "The dataset's configuration.")
    text: str | None = option(None, "Text to train on: a file or folder. Default: some novels.")
    eval_text: str | None = option(None, "Held-out text. Default: documents of the training text that are kept apart.")
    output_dir: str = option("pruned", "Folder for the result and its checkpoints.")
    max_length: int = option(128, "Word pieces per example.")
    resume: bool = option(False, "Go on with the run whose checkpoints lie in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")
    push_to_hub: str | None = option(None, "Publish the result under this name on the Hub.")
    private: bool = option(False, "With --push-to-hub: only you and your organisation see it.")


def main() -> None:
    arguments, config = parse("Prunes a BERT to a budget.", Arguments, PruningConfig)
    with one_line_errors():
        accelerator = make_accelerator()
    use_all_cores(accelerator, arguments.threads)
    with one_line_errors():
        check_output_folder(Path(arguments.output_dir))
        if arguments.push_to_hub is not None:
            check_ready(arguments.push_to_hub)
        model = load_for_pretraining(arguments.model, dtype=torch.float32)
        tokenizer = load_tokenizer(arguments.model)
        with accelerator.main_process_first():
            train, held_out = load_pairs(arguments, tokenizer, config)
        pruner = SchuBertPruner(
            model,
            config,
            train_dataset=train,
            eval_dataset=held_out,
            tokenizer=tokenizer,
            output_dir=arguments.output_dir,
            accelerator=accelerator,
            provenance=provenance(arguments, config, train, held_out),
        )
        try:
            result = pruner.prune(resume=arguments.resume)
        except KeyboardInterrupt:
            raise SystemExit(
                f"Interrupted. Finished rounds are in {arguments.output_dir}; go on with --resume."
            ) from None
    if accelerator.is_main_process:
        print_report(result)
        print(
            f"\nSaved in {arguments.output_dir}. Load it with\n"
            "    import schubert_hf\n"
            "    from transformers import AutoModelForMaskedLM\n"
            f'    model = AutoModelForMaskedLM.from_pretrained("{arguments.output_dir}")\n'
            "and fine-tune it like any BERT. Smaller: lower --target. Better: raise --recovery-steps."
        )
        if arguments.push_to_hub is not None:
            with one_line_errors():
                print_published(result.push_to_hub(arguments.push_to_hub, private=arguments.private or None))


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"`{model}` has no tokenizer beside its weights: {str(error).splitlines()[0]}"
        ) from error


def load_pairs(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig
) -> tuple[Dataset, Dataset]:
    """Training and held-out sentence pairs."""
    source, eval_source = sources(arguments)
    documents = load_documents(source, config=arguments.dataset_config)
    if eval_source is not None:
        held_out = load_documents(eval_source)
    else:
        documents, held_out = split_documents(documents, held_out=config.eval_examples, seed=config.seed)
    return tuple(
        make_pairs(part, tokenizer, max_length=arguments.max_length, seed=config.seed)
        for part in (documents, held_out)
    )


def sources(arguments: Arguments) -> tuple[str, str | None]:
    """Training and held-out text; None keeps some of the training text apart."""
    source, eval_source = arguments.dataset or arguments.text, arguments.eval_text
    if source is None:
        return str(DEFAULT / "text" / "train.txt"), eval_source or str(DEFAULT / "text" / "valid.txt")
    return source, eval_source


def provenance(arguments: Arguments, config: PruningConfig, train: Dataset, held_out: Dataset) -> dict[str, Any]:
    """What the model's page says of base model and text, and the command that does the same again."""
    root, (text, eval_text) = DEFAULT.parent.parent, sources(arguments)
    named = {"config": arguments.dataset_config} if arguments.dataset_config else {}
    kept_apart = {"name": "documents kept apart from the training text"}
    return {
        "base_model": base_model(arguments.model, root=root),
        "train_data": {**source(text, root=root), **named, "examples": len(train)},
        "eval_data": {**(source(eval_text, root=root) if eval_text else kept_apart), "examples": len(held_out)},
        "max_length": arguments.max_length,
        "command": command_line("accelerate launch examples/prune.py", arguments, config),
    }


if __name__ == "__main__":
    main()
