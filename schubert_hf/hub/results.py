"""Results of the evaluation scripts onto a model's page: `results.json` -> the `evaluation.json` of a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..evaluation.results import Results, TaskResult
from ..run.output import FINETUNING_RECORD
from ..run.provenance import sha256
from .errors import RecordError
from .evaluations import Evaluation, read_evaluations, write_evaluations

# What only explains other numbers stays in results.json.
_LEFT_OUT = ("total", "thresh", "best_", "HasAns", "NoAns")


def add_results(folder: Path, results: Sequence[Path], base_results: Sequence[Path] = ()) -> tuple[Evaluation, ...]:
    """Puts results into a folder's `evaluation.json`; those of the same data set, split and metric are replaced.

    Args:
        folder: of the model that was evaluated, or fine-tuned for the evaluation.
        results: `results.json` files, or folders that hold one.
        base_results: the same of the dense model.

    Returns:
        All that the folder has now.

    Raises:
        ResultsError: a file holds no results.
        RecordError: they are of another model, or the base was evaluated on other examples. Nothing was changed.
    """
    own, base = ([Results.read(path) for path in paths] for paths in (results, base_results))
    for found in own:
        _check_model(folder, found)
    dense = {(result.task, result.split): result for found in base for result in found.results}
    added = tuple(
        evaluation
        for found in own
        for result in found.results
        for evaluation in evaluations_of(result, dense.get((result.task, result.split)))
    )
    new = {_key(evaluation) for evaluation in added}
    kept = tuple(evaluation for evaluation in read_evaluations(folder) if _key(evaluation) not in new)
    write_evaluations(folder, (*kept, *added))
    return (*kept, *added)


def evaluations_of(result: TaskResult, base: TaskResult | None = None) -> list[Evaluation]:
    """The lines that a task's result gives: a metric each, means over the seeds.

    Args:
        result: of one task and split.
        base: of the dense model, on the same.

    Raises:
        RecordError: the two were evaluated on different numbers of examples.
    """
    if base is not None and base.examples != result.examples:
        raise RecordError(
            f"`{result.task}` was evaluated on {result.examples:,} examples, with the base on {base.examples:,}. "
            "Evaluate both on the same."
        )
    data = result.run.get("data")
    found = []
    for metric in result.metrics:
        if any(word in metric for word in _LEFT_OUT):
            continue
        measured = base is not None and metric in base.metrics
        found.append(
            Evaluation(
                dataset=result.dataset,
                task=result.config or result.task,
                task_type=result.task_type,
                metric=metric,
                value=result.mean(metric),
                base_value=base.mean(metric) if base is not None and measured else None,
                std=result.std(metric),
                split=result.split,
                date=result.run.get("date"),
                notes=_notes(result),
                # The official sets are the Hub's, wherever they were read; a text of one's own is not.
                hub=not isinstance(data, dict) or bool(data.get("hub")),
            )
        )
    return found


def _notes(result: TaskResult) -> str | None:
    seeds = f"mean of seeds {', '.join(map(str, result.seeds))}" if len(result.seeds) > 1 else None
    return "; ".join(note for note in (seeds, result.notes) if note) or None


def _check_model(folder: Path, results: Results) -> None:
    """Results of the model in the folder, or of what it was fine-tuned from; names on the Hub cannot be compared."""
    weights, wanted = folder / "model.safetensors", results.model.get("sha256")
    if wanted is None or not weights.exists() or sha256(weights) == wanted:
        return
    record = folder / FINETUNING_RECORD
    try:
        tuned = json.loads(record.read_text(encoding="utf-8"))["settings"]["model"] if record.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"`{FINETUNING_RECORD}` cannot be read: {error}. Remove it, or fine-tune again.") from error
    if tuned.get("sha256") != wanted:
        raise RecordError(
            f"The results are of `{results.model.get('name')}`, whose weights are not those in `{folder.name}`. "
            "Give the results of this model."
        )


def _key(evaluation: Evaluation) -> tuple[str, str, str | None, str]:
    return evaluation.dataset, evaluation.task, evaluation.split, evaluation.metric
