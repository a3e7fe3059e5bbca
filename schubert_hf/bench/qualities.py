"""The quality of pruned checkpoints and of the dense model, as the records of their runs have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoders.kinds import read
from ..evaluation.results import Evaluation
from ..hub.encoders import FIGURES
from ..hub.evaluations import FILE
from ..hub.tables import loss_unit
from ..run.output import PRUNING_RECORD
from ..run.provenance import source
from .checkpoint import labels


@dataclass(frozen=True)
class Quality:
    """One figure, of the models that have it.

    Attributes:
        name: what it is, in words.
        values: by model, as `labels` calls it.
    """

    name: str
    values: dict[str, float]


def read_qualities(models: Sequence[str]) -> Quality | None:
    """The figure that most of the models have: a result on a task, closeness to the dense model, or held-out loss.

    Args:
        models: folders or names on the Hub. A dense model is known by the record of one that was pruned from it.

    Returns:
        None if no record has one.
    """
    figures: dict[str, dict[str, float]] = {}
    called = dict(zip(models, labels(models), strict=True))
    identities = {name: source(name) for name in models}
    for name in models:
        record = read(name, PRUNING_RECORD) or {}
        own, dense = _figures(record, [Evaluation.from_json(item) for item in read(name, FILE, list) or ()])
        base = record.get("provenance", {}).get("base_model", {})
        bases = [other for other in models if other != name and _is_same(identities[other], base)]
        for title, value in own.items():
            values = figures.setdefault(title, {})
            values[called[name]] = value
            if title in dense:
                values |= {called[other]: dense[title] for other in bases if called[other] not in values}
    if not figures:
        return None
    title, values = max(figures.items(), key=lambda item: len(item[1]))
    return Quality(title, values)


def _figures(record: dict[str, Any], evaluations: list[Evaluation]) -> tuple[dict[str, float], dict[str, float]]:
    """By title, of the model itself and of the dense one; in the order in which they are preferred."""
    own: dict[str, float] = {}
    dense: dict[str, float] = {}
    for result in evaluations:
        for metric in result.shown:
            title = " ".join(filter(None, [result.config or result.task, result.split, metric]))
            own[title] = result.mean(metric)
            dense |= {title: result.base[metric]} if metric in result.base else {}
    for name, title in FIGURES.items():
        if name in (encoder := record.get("encoder") or {}):
            own[title], dense[title] = encoder[name], 1.0
    if rounds := record.get("rounds"):
        title = f"held-out loss ({loss_unit(rounds[0]['before'])})"
        own[title], dense[title] = rounds[-1]["after_recovery"]["loss"], rounds[0]["before"]["loss"]
    return own, dense


def _is_same(found: dict[str, Any], recorded: dict[str, Any]) -> bool:
    """Whether two `provenance.source`s are of one model: by its weights, or by its name on the Hub."""
    if "sha256" in found and "sha256" in recorded:
        return bool(found["sha256"] == recorded["sha256"])
    return Path(str(found["name"])).name == Path(str(recorded.get("name"))).name
