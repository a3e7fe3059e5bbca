"""Prunes a BERT to a budget, after schuBERT (Khetan & Karnin, ACL 2020): `--method schubert` is their Algorithm 1.

    accelerate launch examples/prune.py

Without arguments it takes the small English BERT that lies beside it to 60 % of its parameters, offline, in a few
minutes on two cores. The same for any BERT, from the Hub or from disk:

    accelerate launch examples/prune.py --model google-bert/bert-base-uncased --dataset wikitext --target 66M

`--recovery-steps 0 --rounds 1` trains nothing at all. Several sizes in one run, each with its model and its page:

    accelerate launch examples/prune.py --target 80%,60%,40%

A run can be stopped at any moment and goes on with `--resume`.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.cli import command_line, one_line_errors, parse
from schubert_hf.commands import print_published
from schubert_hf.conversion import ConversionError, load_for_pretraining
from schubert_hf.hub import publish, write_page
from schubert_hf.hub.publishing import check_ready
from schubert_hf.provenance import base_model, source
from schubert_hf.pruning.result import PruningResult
from schubert_hf.report import print_report
from schubert_hf.training.environment import make_accelerator, use_all_cores
from schubert_hf.training.interrupt import Interrupted
from schubert_hf.training.loop_config import option
from schubert_hf.training.output import check_output_folder
from schubert_hf.training.pairs import make_pairs
from schubert_hf.training.progress import show_on_main_process_only
from schubert_hf.training.streaming import StreamedPairs, not_held_out
from schubert_hf.training.streaming_sources import held_out_documents, stream_documents
from schubert_hf.training.text import load_documents, split_documents
from schubert_hf.training.tracking import begin_tracking, tracker_options

DEFAULT = Path(__file__).parent / "default"


@dataclass
class Arguments:
    """What to prune, on which text, and where to put it."""

    model: str = option(str(DEFAULT / "model"), "A BERT or SchuBERT: a folder or a name on the Hub.")
    dataset: str | None = option(None, "Text to train on: a dataset on the Hub.")
    dataset_config: str | None = option(None, "The dataset's configuration.")
    text: str | None = option(None, "Text to train on: a file or folder. Default: some novels.")
    eval_text: str | None = option(None, "Held-out text. Default: documents of the training text that are kept apart.")
    streaming: bool = option(False, "Read the text as it is trained on: for corpora too large to be prepared first.")
    output_dir: str = option("pruned", "Folder for the result and its checkpoints.")
    max_length: int = option(128, "Word pieces per example.")
    report_to: str = option(
        "tensorboard", 'Trackers, e.g. "tensorboard,wandb", or "none". TensorBoard\'s lie in logs/.'
    )
    resume: bool = option(False, "Go on with the run whose checkpoints lie in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")
    push_to_hub: str | None = option(
        None, "Publish the result under this name on the Hub; of several, each with its size behind the name."
    )
    private: bool = option(False, "With --push-to-hub: only you and your organisation see it.")


def main() -> None:
    arguments, config = parse("Prunes a BERT to a budget.", Arguments, PruningConfig)
    output = Path(arguments.output_dir)
    with one_line_errors():
        accelerator = make_accelerator(**tracker_options(arguments.report_to, output))
    use_all_cores(accelerator, arguments.threads)
    show_on_main_process_only(accelerator)
    with one_line_errors():
        check_output_folder(output)
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
            output_dir=output,
            accelerator=accelerator,
            provenance=provenance(arguments, config, train, held_out),
            on_result=show,
        )
        begin_tracking(accelerator, "pruning", {**asdict(arguments), **asdict(config)})
        try:
            pruner.prune(resume=arguments.resume)
        except Interrupted as stop:
            accelerator.end_training()  # what the trackers hold is written
            if accelerator.is_main_process:
                print(f"{stop}. What was done is in {output}; go on with --resume.", file=sys.stderr)
            raise SystemExit(stop.exit_code) from None
    if arguments.push_to_hub is not None and accelerator.is_main_process:
        publish_all(pruner.folders, arguments.push_to_hub, private=arguments.private)
    accelerator.end_training()


def show(result: PruningResult) -> None:
    """Tells of a result, and gives it a page."""
    folder = result.output_dir
    assert folder is not None
    write_page(folder, folder.name)
    print_report(result)
    print(
        f"\nSaved in {folder}, with a page of its own (README.md). Load it with\n"
        "    import schubert_hf\n"
        "    from transformers import AutoModelForMaskedLM\n"
        f'    model = AutoModelForMaskedLM.from_pretrained("{folder}")\n'
        "and fine-tune it like any BERT. Smaller: lower --target. Better: raise --recovery-steps."
    )


def publish_all(folders: list[Path], name: str, *, private: bool) -> None:
    """Every result under its name on the Hub: of several, each with its size behind the common name."""
    for folder in folders:
        with one_line_errors():
            own = f"{name}-{folder.name.lower()}" if len(folders) > 1 else name
            print_published(publish(folder, own, private=private or None))


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"`{model}` has no tokenizer beside its weights: {str(error).splitlines()[0]}"
        ) from error


def load_pairs(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig
) -> tuple[Dataset | StreamedPairs, Dataset]:
    """Training and held-out sentence pairs."""
    if arguments.streaming:
        return stream_pairs(arguments, tokenizer, config)
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


def stream_pairs(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig
) -> tuple[StreamedPairs, Dataset]:
    """The same, training pairs made as they are needed."""
    source, eval_source = sources(arguments)
    documents = stream_documents(source, config=arguments.dataset_config)
    form: dict[str, Any] = {"max_length": arguments.max_length, "seed": config.seed}
    if eval_source is not None:
        held_out = load_documents(eval_source)
    else:
        held_out = held_out_documents(documents, config.eval_examples)
    train = StreamedPairs(
        documents,
        tokenizer,
        lanes=config.batch_size,
        wanted=None if eval_source is not None else not_held_out,
        **form,
    )
    return train, make_pairs(held_out, tokenizer, **form)


def sources(arguments: Arguments) -> tuple[str, str | None]:
    """Training and held-out text; None keeps some of the training text apart."""
    source, eval_source = arguments.dataset or arguments.text, arguments.eval_text
    if source is None:
        return str(DEFAULT / "text" / "train.txt"), eval_source or str(DEFAULT / "text" / "valid.txt")
    return source, eval_source


def provenance(arguments: Arguments, config: PruningConfig, train: Any, held_out: Dataset) -> dict[str, Any]:
    """What the model's page says of base model and text, and the command that does the same again."""
    root, (text, eval_text) = DEFAULT.parent.parent, sources(arguments)
    named: dict[str, Any] = {"config": arguments.dataset_config} if arguments.dataset_config else {}
    if not arguments.streaming:  # nobody counts a stream's
        named["examples"] = len(train)
    kept_apart = {"name": "documents kept apart from the training text"}
    return {
        "base_model": base_model(arguments.model, root=root),
        "train_data": {
            **source(text, root=root),
            **named,
            **({} if arguments.streaming else {"examples": len(train)}),
        },
        "eval_data": {**(source(eval_text, root=root) if eval_text else kept_apart), "examples": len(held_out)},
        "max_length": arguments.max_length,
        "command": command_line("accelerate launch examples/prune.py", arguments, config),
    }


if __name__ == "__main__":
    main()
