"""`prune`: a BERT in, a smaller one out. Every way to start a pruning run leads here."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..cli import python_call
from ..data.streaming import StreamedPairs
from ..hub.publishing import Published, check_ready, publish
from ..hub.writing import check_page_free, write_missing_pages, write_page
from ..pruning.config import PruningConfig
from ..pruning.pruner import SchuBertPruner
from ..pruning.result import PruningResult, result_folders
from ..run.network import hub_asked_once
from ..run.processes import make_accelerator, use_all_cores
from ..run.progress import without_loading_bars
from ..run.tracking import begin_tracking, tracker_options
from .arguments import PruneArguments, read_settings
from .job import describe_base
from .jobs import open_job
from .trim import trim_first

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_logger = logging.getLogger(__name__)


def prune(
    model: str | os.PathLike[str] | PreTrainedModel | SentenceTransformer | CrossEncoder,
    target: str | float,
    *,
    text: str | os.PathLike[str] | Sequence[str] | Dataset | None = None,
    objective: str = "auto",
    output_dir: str | os.PathLike[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **settings: Any,
) -> PruningResult:
    """Prunes a BERT, or a model of one of the families in `schubert_hf.families`, to a budget.

    Args:
        model: a name on the Hub, a folder, or a model in memory, which is left unchanged; of sentence-transformers, a
            `SentenceTransformer` or `CrossEncoder`, or its folder: `result.package.model` is then a smaller one.
        target: what must remain: "66M", 0.6, "60%", "2.5GFLOPs", "12ms"; several sizes as "99M,88M,77M". Of a
            model whose `vocabulary` is trimmed, too, a share of the parameters is one of those before trimming.
        text: what it is pruned on: a file or folder (see `load_documents`), the name of a dataset, a
            list of documents, or a `datasets.Dataset` with the column `text`.
        objective: "pretraining" (MLM + NSP on text), "outputs" (match what the dense model gives on text without
            labels, whatever its head), "task" (a fine-tuned model, on labelled examples), or "auto": "task" where the
            setting `task` names one, "pretraining" for a model with that head, else "outputs".
        output_dir: folder for the result, its page and its checkpoints; None writes nothing.
        tokenizer: of the model; by default the one beside the checkpoint that it was loaded from.
        settings: the fields of `PruningConfig` and of `front.arguments.PruneArguments`, such as `rounds`,
            `recovery_steps`, `task`, `eval_text`, `streaming` and `resume`; `schubert prune --help` lists all.

    Returns:
        The result with the smaller model; of several targets, the last one's. `result.push_to_hub(...)` publishes it.

    Raises:
        SettingError: a setting does not exist, is missing, or contradicts another one.
        SchuBertError: model, text or settings cannot be used, or not together; see `SchuBertPruner`.
        Interrupted, NonFiniteLossError: as `SchuBertPruner.prune`.

    Example:
        ```python
        result = schubert_hf.prune("google-bert/bert-base-uncased", "50%", text="corpus.txt", output_dir="small")
        ```
    """
    given = {"text": text, "output_dir": output_dir, **settings}
    arguments, config = read_settings({"model": model, "target": target, "objective": objective, **given})
    named = {name: value for name, value in given.items() if value is not None}
    if objective != "auto":
        named["objective"] = objective
    if tokenizer is not None:
        named["tokenizer"] = tokenizer
    command = python_call("schubert_hf.prune", ("model", model), ("target", target), **named)
    trackers = {} if output_dir is None else tracker_options(arguments.report_to, Path(output_dir))
    accelerator = make_accelerator(**trackers)
    if arguments.threads is not None:
        use_all_cores(accelerator, arguments.threads)
    try:
        return run_prune(arguments, config, accelerator, tokenizer=tokenizer, command=command)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


@torch.inference_mode(mode=False)  # a notebook may have switched gradients off
@without_loading_bars()
def run_prune(
    arguments: PruneArguments,
    config: PruningConfig,
    accelerator: Accelerator,
    *,
    command: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    root: Path | None = None,
    on_result: Callable[[PruningResult], None] | None = None,
    on_published: Callable[[Published], None] | None = None,
) -> PruningResult:
    """`prune`, of settings that are read, on the processes of an accelerator.

    Args:
        accelerator: with the trackers of `tracker_options`.
        command: what repeats the run, for the model's page.
        root: files in this folder are named on the page by their path in it.
        on_result: called on the main process with every result that was written, with its page.
        on_published: called on the main process with every model that was published.

    Raises:
        SettingError: no model, or nothing to prune it on.
    """
    arguments.check_complete()
    output = None if arguments.output_dir is None else Path(arguments.output_dir)
    if output is not None:
        if arguments.resume and accelerator.is_main_process:
            for folder in write_missing_pages(output):
                _logger.warning("Wrote the missing page of %s.", folder)
        for folder in result_folders(output, config.targets):
            check_page_free(folder)
    if arguments.push_to_hub is not None:
        check_ready(arguments.push_to_hub)
    given, trimmed = arguments, None
    with accelerator.main_process_first(), hub_asked_once(arguments.model):
        if arguments.vocabulary is not None:
            trimmed = trim_first(arguments, tokenizer, root)
            smaller = trimmed.model if trimmed.package is None else trimmed.package.model
            arguments, tokenizer = replace(arguments, model=smaller), trimmed.tokenizer
        job = open_job(arguments, config, tokenizer=tokenizer, root=root)

    def finish(result: PruningResult) -> None:
        assert result.output_dir is not None
        write_page(result.output_dir)
        if on_result is not None:
            on_result(result)

    assert given.model is not None
    counted = {} if isinstance(job.train, StreamedPairs) else {"examples": len(job.train)}  # nobody counts a stream's
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
        provenance={
            "base_model": describe_base(given.model, root),
            "train_data": {**job.train_data, **counted},
            "eval_data": {**job.eval_data, "examples": len(job.held_out)},
            "max_length": job.max_length,
            "command": command,
            **({} if trimmed is None else {"vocabulary": trimmed.facts}),
        },
        package=job.package,
        on_result=finish,
        whole=None if trimmed is None else trimmed.facts["parameters"][0],
    )
    # The pruner has copied its model, which would take memory to the end of the run.
    del job, arguments, trimmed
    begin_tracking(accelerator, "pruning", {**_loggable(given), **asdict(config)})
    result = pruner.prune(resume=given.resume)
    if given.push_to_hub is not None and accelerator.is_main_process:
        for folder in pruner.folders:
            own = f"{given.push_to_hub}-{folder.name.lower()}"  # of several, each with its size
            name = own if len(pruner.folders) > 1 else given.push_to_hub
            published = publish(folder, name, private=given.private or None)
            if on_published is not None:
                on_published(published)
    return result


def _loggable(arguments: PruneArguments) -> dict[str, Any]:
    """Arguments by name, what is in memory by its type."""
    values = {option.name: getattr(arguments, option.name) for option in fields(arguments)}
    return {
        name: value if isinstance(value, str | bool | int | None) else type(value).__name__
        for name, value in values.items()
    }
