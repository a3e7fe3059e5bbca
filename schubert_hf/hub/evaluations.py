"""Results in a model's folder (`evaluation.json`), and in the two forms that the Hub reads.

The Hub's current form is `.eval_results/*.yaml`, its older one `model-index` in the page's metadata; both are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from ..evaluation.results import Evaluation, Results
from ..run.checkpoint import write_json
from ..run.output import FINETUNING_RECORD
from ..run.provenance import sha256
from .errors import RecordError
from .inspection import read_json

FILE = "evaluation.json"
FOLDER = ".eval_results"


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """The results in a folder's `evaluation.json`; empty if there is no such file.

    Raises:
        RecordError: the file holds no list of results.
    """
    path = folder / FILE
    try:
        items = json.loads(path.read_text(encoding="utf-8")) if path.exists() else ()
        return tuple(map(Evaluation.from_json, items))
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"`{FILE}` holds no list of results: {error}. Remove it, or write it again.") from error


def write_evaluations(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Keeps results in a folder, for its page."""
    write_json(folder / FILE, [evaluation.to_json() for evaluation in evaluations])


def add_results(folder: Path, results: Sequence[Path], base_results: Sequence[Path] = ()) -> tuple[Evaluation, ...]:
    """Adds results to a folder's `evaluation.json`; those of the same data set, split and metric are replaced.

    Args:
        folder: of the model that was evaluated, or fine-tuned for the evaluation.
        results, base_results: `results.json` files, or folders that hold one; the same for the dense model.

    Returns:
        All results that the folder holds now.

    Raises:
        ResultsError: a file holds no results.
        RecordError: the results are another model's, or the base was evaluated on other examples. Nothing is changed.
    """
    own, dense = ([Results.read(path) for path in paths] for paths in (results, base_results))
    base = {(result.task, result.split): result for read in dense for result in read.results}
    added = []
    for read in own:
        _check_model(folder, read)
        added += [_beside(result, base.get((result.task, result.split))) for result in read.results]
    new = {(_place(result), metric) for result in added for metric in result.metrics}
    kept = []
    for result in read_evaluations(folder):
        metrics = {name: values for name, values in result.metrics.items() if (_place(result), name) not in new}
        kept += [replace(result, metrics=metrics)] if metrics else []
    write_evaluations(folder, (*kept, *added))
    return (*kept, *added)


def model_index(evaluations: Sequence[Evaluation]) -> list[EvalResult]:
    """The numbers on the Hub's data sets, for the page's metadata."""
    return [
        EvalResult(
            task_type=result.task_type,
            dataset_type=result.dataset,
            dataset_name=f"{result.dataset} ({result.config or result.task})",
            dataset_config=result.config or result.task,
            dataset_split=result.split,
            dataset_revision=result.run.get("revision"),
            metric_type=metric,
            metric_value=result.mean(metric),
        )
        for result in evaluations
        if result.hub
        for metric in result.shown
    ]


def eval_result_files(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Path in the repository -> YAML, one file per data set of the Hub."""
    files: dict[str, list[dict[str, Any]]] = {}
    for result in evaluations:
        if result.hub:
            name = re.sub(r"[^A-Za-z0-9]+", "-", result.dataset).strip("-").lower()
            files.setdefault(f"{FOLDER}/{name}.yaml", []).extend(_entries(result))
    return {path: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) for path, entries in files.items()}


def _entries(result: Evaluation) -> list[dict[str, Any]]:
    """Items of `.eval_results/*.yaml`, as `huggingface_hub.EvalResultEntry` has them; older clients lack that."""
    dataset = {"id": result.dataset, "task_id": result.config or result.task, "revision": result.run.get("revision")}
    entries = []
    for metric in result.shown:
        std = result.std(metric)
        spread = None if std is None else f"standard deviation {std:.4g}"
        notes = ", ".join(filter(None, [metric, result.split, spread, result.remarks]))
        entry = {"value": result.mean(metric), "date": result.run.get("date"), "notes": notes}
        entries.append({"dataset": _known(dataset), **_known(entry)})
    return entries


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _beside(result: Evaluation, dense: Evaluation | None) -> Evaluation:
    if dense is None:
        return result
    if dense.examples != result.examples:
        raise RecordError(
            f"`{result.task}` was evaluated on {result.examples:,} examples, with the base on {dense.examples:,}. "
            "Evaluate both on the same examples."
        )
    return replace(result, base={metric: dense.mean(metric) for metric in dense.metrics})


def _place(result: Evaluation) -> tuple[str, str, str | None]:
    return result.dataset, result.config or result.task, result.split


def _check_model(folder: Path, results: Results) -> None:
    """Results must be of the model in the folder, or of what it was fine-tuned from. Hub names cannot be compared."""
    weights, wanted = folder / "model.safetensors", results.model.get("sha256")
    if wanted is None or not weights.exists() or sha256(weights) == wanted:
        return
    settings = (read_json(folder / FINETUNING_RECORD) or {}).get("settings", {})
    if settings.get("model", {}).get("sha256") != wanted:
        raise RecordError(
            f"The results are those of `{results.model.get('name')}`, whose weights are not the ones in "
            f"`{folder.name}`. Give the results of this model."
        )
