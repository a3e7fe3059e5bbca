"""`schubert prune`: a smaller BERT, with its page."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..auto import MODELS
from ..cli import command_line, positional
from ..errors import one_line_errors
from ..front.arguments import GROUPS, PruneArguments
from ..pruning.config import PruningConfig
from .publish import print_published

if TYPE_CHECKING:
    from ..pruning.result import PruningResult

MODULE = "accelerate launch -m schubert_hf"
SLOW = 0.9  # of the dense FLOPs: such a model is hardly faster


@dataclass
class Prune(PruneArguments):
    """Prune a BERT, with any head or none, to a budget: on text, or on the task that it was fine-tuned on.

        schubert prune google-bert/bert-base-uncased --target 60% --text corpus.txt --output-dir small
        schubert prune sentence-transformers/all-MiniLM-L6-v2 --target 60% --text corpus.txt
        schubert prune textattack/bert-base-uncased-SST-2 --target 50% --task sst2

    `--recovery-steps 0` trains nothing at all. `--target 80%,60%,40%` makes several sizes in one run. A
    run can be stopped at any moment; `--resume` continues it. On many processes it is started by
    `accelerate launch -m schubert_hf prune ...`.
    """

    model: str | None = positional(
        "A BERT, a relative of it, or a SchuBERT, with any head or none: a folder or a name on the Hub.", default=None
    )

    settings: ClassVar[tuple[type[Any], ...]] = (PruningConfig,)
    groups: ClassVar[Any] = GROUPS
    usage: ClassVar[str] = "schubert prune MODEL --target SIZE --text TEXT [--output-dir FOLDER] [more settings]"

    def run(self, config: PruningConfig) -> None:
        as_module = Path(sys.argv[0]).parts[-2:] == ("schubert_hf", "__main__.py")
        run(self, config, command_line(f"{MODULE} prune" if as_module else "schubert prune", self, config))


def run(arguments: PruneArguments, config: PruningConfig, command: str, *, root: Path | None = None) -> None:
    """Prunes, prints every result, and publishes it if that is asked for: what a script does after parsing.

    Args:
        command: what repeats the run, for the model's page.
        root: files in this folder are named on the page by their path in it.
    """
    from ..front.prune import run_prune
    from ..run.processes import script
    from ..run.tracking import tracker_options

    def show(result: PruningResult) -> None:
        print_result(result, arguments.task, dense=arguments.model)

    output = arguments.output_dir
    with one_line_errors():
        trackers = {} if output is None else tracker_options(arguments.report_to, Path(output))
    with script(arguments.threads, **trackers) as accelerator:
        run_prune(
            arguments, config, accelerator, command=command, root=root, on_result=show, on_published=print_published
        )


def print_result(result: PruningResult, task: str | None = None, *, dense: str | None = None) -> None:
    """Prints the report of a result that was written, and how to load it; `dense`: the model as the user named it."""
    from ..report import print_report, print_vocabulary

    folder = result.output_dir
    if (trimmed := result.provenance.get("vocabulary")) is not None:
        print_vocabulary(trimmed)
    print_report(result)
    if result.unit == "parameters":
        _print_flops(result)
    name = type(result.model).__name__.replace("ForPreTraining", "ForMaskedLM")
    head = {model.__name__: auto.__name__ for auto, model in MODELS.items()}[name]
    if task is not None:
        script = "run_squad.py" if task.startswith("squad") else "run_glue.py"
        then = f"and evaluate it: examples/{script} --task {task} --evaluate-only --model {folder}"
    elif head == "AutoModelForMaskedLM":
        then = "and fine-tune it like any BERT."
    else:
        then = "in place of the dense model."
    if result.package is not None:
        kind = result.package.facts["kind"]
        sys.stdout.write(
            f"\nSaved in {folder}, with a page of its own (README.md). Load it, with or without this package, with\n"
            f"    from sentence_transformers import {kind}\n"
            f'    model = {kind}("{folder}", trust_remote_code=True)\n'
            "Smaller: lower --target. Better: raise --recovery-steps. Beside the dense model on other text:\n"
            f"    schubert evaluate {folder}{f' --dense {shlex.quote(dense)}' if dense else ''} --text other.txt\n"
        )
        return
    sys.stdout.write(
        f"\nSaved in {folder}, with a page of its own (README.md). Load it with\n"
        "    import schubert_hf\n"
        f"    from transformers import {head}\n"
        f'    model = {head}.from_pretrained("{folder}")\n'
        f"{then}\nSmaller: lower --target. Better: raise --recovery-steps.\n"
    )


def _print_flops(result: PruningResult) -> None:
    """What is left of the FLOPs, where the target did not count them; embeddings are parameters, but take no time."""
    from ..hub.inspection import Inspection

    model = Inspection.of_json("", result.model.config.to_dict(), result.to_json())
    assert model.dense is not None
    kept = model.flops.total / model.dense.flops.total
    faster = "" if kept < SLOW else " Smaller, but hardly faster: for speed, count them with --cost flops."
    sys.stdout.write(f"FLOPs: {kept:.1%} kept.{faster}\n")
