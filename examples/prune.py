"""Prunes a BERT to a budget, after schuBERT (Khetan & Karnin, ACL 2020): `--method schubert` is their Algorithm 1.

    accelerate launch examples/prune.py

Without arguments it takes the small English BERT that lies beside it to 60 % of its parameters, offline, in a few
minutes on two cores. The same for any BERT, from the Hub or from disk:

    accelerate launch examples/prune.py --model google-bert/bert-base-uncased --dataset wikitext --target 66M

`--recovery-steps 0 --rounds 1` trains nothing at all. Several sizes in one run, each with its model and its page:

    accelerate launch examples/prune.py --target 80%,60%,40%

A model that was fine-tuned by run_glue.py or run_squad.py is pruned on its task, with the loss of its head:

    accelerate launch examples/prune.py --task sst2 --model tuned/sst2/seed-0

A run can be stopped at any moment; `--resume` continues it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.auto import MODELS
from schubert_hf.cli import command_line, parse
from schubert_hf.commands import print_published
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.data.pairs import make_pairs
from schubert_hf.data.stream import Collator
from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.data.text import held_out_documents, load_documents, not_held_out, split_documents, stream_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.evaluation.loading import load_tokenizer
from schubert_hf.evaluation.open_task import open_task
from schubert_hf.hub import publish, write_page
from schubert_hf.hub.publishing import check_ready
from schubert_hf.hub.writing import write_missing_pages
from schubert_hf.pruning.data import PruningDataError
from schubert_hf.pruning.result import PruningResult
from schubert_hf.report import print_report
from schubert_hf.run.output import check_output_folder
from schubert_hf.run.processes import script
from schubert_hf.run.provenance import base_model, source
from schubert_hf.run.tracking import begin_tracking, tracker_options
from schubert_hf.training.loop_config import option
from schubert_hf.training.objective import Objective, PretrainingObjective

DEFAULT = Path(__file__).parent / "default"
ROOT = DEFAULT.parent.parent
AUTO_CLASSES = {model.__name__: auto.__name__ for auto, model in MODELS.items()}


@dataclass
class Arguments:
    """What to prune, on which text, and where to put it."""

    model: str = option(str(DEFAULT / "model"), "A BERT or SchuBERT: a folder or a name on the Hub.")
    dataset: str | None = option(None, "Text to train on: a dataset on the Hub.")
    dataset_config: str | None = option(None, "The dataset's configuration.")
    text: str | None = option(None, "Text to train on: a file or folder. Default: some novels.")
    eval_text: str | None = option(None, "Held-out text. Default: documents of the training text that are kept apart.")
    task: str | None = option(
        None, "Prune a fine-tuned model on its task, with the loss of its head: a task of GLUE, squad or squad_v2."
    )
    data: str | None = option(None, "With --task: a folder with the official files. Default: the Hub.")
    max_train_examples: int | None = option(None, "With --task: train on that many examples, at most.")
    streaming: bool = option(False, "Read the text as it is trained on: for corpora too large to be prepared first.")
    output_dir: str = option("pruned", "Folder for the result and its checkpoints.")
    max_length: int | None = option(None, "Word pieces per example. Default: 128; 384 for the SQuADs.")
    report_to: str = option(
        "tensorboard", 'Trackers, e.g. "tensorboard,wandb", or "none". TensorBoard\'s lie in logs/.'
    )
    resume: bool = option(False, "Resume the run whose checkpoints are in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")
    push_to_hub: str | None = option(
        None, "Publish the result under this name on the Hub; of several, each with its size behind the name."
    )
    private: bool = option(False, "With --push-to-hub: only you and your organisation see it.")


def main() -> None:
    arguments, config = parse("Prunes a BERT to a budget.", Arguments, PruningConfig)
    output = Path(arguments.output_dir)
    with one_line_errors(), script(arguments.threads, **tracker_options(arguments.report_to, output)) as accelerator:
        if arguments.resume and accelerator.is_main_process:
            for folder in write_missing_pages(output):
                print(f"Wrote the missing page of {folder}.")
        check_output_folder(output)
        if arguments.push_to_hub is not None:
            check_ready(arguments.push_to_hub)
        with accelerator.main_process_first():
            job = text_job(arguments, config) if arguments.task is None else task_job(arguments)
        pruner = SchuBertPruner(
            job.model,
            config,
            train_dataset=job.train,
            eval_dataset=job.held_out,
            data_collator=job.collator,
            tokenizer=job.tokenizer,
            output_dir=output,
            accelerator=accelerator,
            objective=job.objective,
            provenance=provenance(arguments, config, job),
            on_result=partial(show, task=arguments.task),
        )
        begin_tracking(accelerator, "pruning", {**asdict(arguments), **asdict(config)})
        pruner.prune(resume=arguments.resume)
        if arguments.push_to_hub is not None and accelerator.is_main_process:
            publish_all(pruner.folders, arguments.push_to_hub, private=arguments.private)


def show(result: PruningResult, *, task: str | None) -> None:
    """Tells of a result, and gives it a page."""
    folder = result.output_dir
    assert folder is not None
    write_page(folder, folder.name)
    print_report(result)
    if task is None:
        head, then = "AutoModelForMaskedLM", "and fine-tune it like any BERT."
    else:
        script = "run_squad.py" if task.startswith("squad") else "run_glue.py"
        head = AUTO_CLASSES[type(result.model).__name__]
        then = f"and evaluate it: examples/{script} --task {task} --evaluate-only --model {folder}"
    print(
        f"\nSaved in {folder}, with a page of its own (README.md). Load it with\n"
        "    import schubert_hf\n"
        f"    from transformers import {head}\n"
        f'    model = {head}.from_pretrained("{folder}")\n'
        f"{then}\nSmaller: lower --target. Better: raise --recovery-steps."
    )


def publish_all(folders: list[Path], name: str, *, private: bool) -> None:
    """Every result under its name on the Hub: of several, each with its size behind the common name."""
    for folder in folders:
        with one_line_errors():
            own = f"{name}-{folder.name.lower()}" if len(folders) > 1 else name
            print_published(publish(folder, own, private=private or None))


class Job(NamedTuple):
    """What is pruned, on which examples, by which loss; and what its page says of them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset | StreamedPairs
    held_out: Dataset
    objective: Callable[[PreTrainedModel], Objective]
    collator: Collator | None  # None: pairs are masked
    max_length: int
    train_data: dict[str, Any]
    eval_data: dict[str, Any]


def text_job(arguments: Arguments, config: PruningConfig) -> Job:
    """A BERT with its pretraining heads, on text."""
    model = load_for_pretraining(arguments.model, dtype=torch.float32)
    tokenizer = load_tokenizer(arguments.model)
    form: dict[str, Any] = {"max_length": arguments.max_length or 128, "seed": config.seed}
    make = stream_pairs if arguments.streaming else load_pairs
    train, held_out = make(arguments, tokenizer, config, form)
    text, eval_text = sources(arguments)
    named = {"config": arguments.dataset_config} if arguments.dataset_config else {}
    kept_apart = {"name": "documents kept apart from the training text"}
    return Job(
        model=model,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        objective=PretrainingObjective,
        collator=None,
        max_length=form["max_length"],
        train_data={**source(text, root=ROOT), **named},
        eval_data=source(eval_text, root=ROOT) if eval_text else kept_apart,
    )


def task_job(arguments: Arguments) -> Job:
    """A fine-tuned model, on its task."""
    assert arguments.task is not None
    if arguments.text or arguments.dataset or arguments.eval_text or arguments.streaming:
        raise PruningDataError(
            "`--task` brings its own examples; `--text`, `--dataset`, `--eval-text` and `--streaming` are for runs "
            "without it. Give one or the other."
        )
    model, tokenizer, examples = open_task(
        arguments.task,
        arguments.model,
        data=Path(arguments.data) if arguments.data else None,
        max_length=arguments.max_length,
        max_train_examples=arguments.max_train_examples,
    )
    assert examples.train is not None
    return Job(
        model=model,
        tokenizer=tokenizer,
        train=examples.train,
        held_out=examples.held_out,
        objective=examples.objective,
        collator=examples.collator,
        max_length=examples.max_length,
        train_data=examples.source,
        eval_data={**examples.source, "split": examples.splits[0]},
    )


def load_pairs(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig, form: dict[str, Any]
) -> tuple[Dataset, Dataset]:
    """Training and held-out sentence pairs."""
    source, eval_source = sources(arguments)
    documents = load_documents(source, config=arguments.dataset_config)
    if eval_source is not None:
        held_out = load_documents(eval_source)
    else:
        documents, held_out = split_documents(documents, held_out=config.eval_examples, seed=config.seed)
    return make_pairs(documents, tokenizer, **form), make_pairs(held_out, tokenizer, **form)


def stream_pairs(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig, form: dict[str, Any]
) -> tuple[StreamedPairs, Dataset]:
    """The same, training pairs made as they are needed."""
    source, eval_source = sources(arguments)
    documents = stream_documents(source, config=arguments.dataset_config)
    if eval_source is not None:
        held_out = load_documents(eval_source)
    else:
        held_out = held_out_documents(documents, config.eval_examples)
    train = StreamedPairs(
        documents,
        tokenizer,
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


def provenance(arguments: Arguments, config: PruningConfig, job: Job) -> dict[str, Any]:
    """What the model's page says of base model and data, and the command that does the same again."""
    counted = {} if isinstance(job.train, StreamedPairs) else {"examples": len(job.train)}  # nobody counts a stream's
    return {
        "base_model": base_model(arguments.model, root=ROOT),
        "train_data": {**job.train_data, **counted},
        "eval_data": {**job.eval_data, "examples": len(job.held_out)},
        "max_length": job.max_length,
        "command": command_line("accelerate launch examples/prune.py", arguments, config),
    }


if __name__ == "__main__":
    main()
