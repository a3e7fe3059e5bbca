"""Pages without weights: one for each of the paper's shapes, and those of results whose data lies there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..configuration_schubert import SchuBertConfig
from ..latency.measure import measure
from ..shape import Shape
from .card import finish, render_card, template_text
from .facts import Facts
from .inspection import Inspection
from .looking import BERT_BASE
from .paper import BERT_BASE as BASE_RESULTS
from .paper import RESULTS, TASKS, variant
from .plots import ROUNDS, WIDTHS, draw_rounds, draw_widths
from .preset import preset_data
from .staging import README

PAGE_DATA = "record.json"


def render_preset(preset: str) -> str:
    """The page of one of the paper's shapes."""
    paper: dict[str, Any] = {}
    if preset in RESULTS:
        rows = [[BERT_BASE, *BASE_RESULTS], [f"{variant(preset)} ({preset})", *RESULTS[preset]]]
        paper = {"paper_tasks": list(TASKS), "paper_rows": rows, "variant": variant(preset)}
    return finish(template_text(**preset_data(inspect_preset(preset)), **paper))


def inspect_preset(preset: str) -> Inspection:
    base = Shape.of(SchuBertConfig.from_preset(BERT_BASE))
    return Inspection(preset, SchuBertConfig.from_preset(preset), base, BERT_BASE)


def write_preset(preset: str, folder: Path) -> None:
    """Page and picture of one of the paper's shapes."""
    inspection = inspect_preset(preset)
    draw_widths(inspection.shape, folder / WIDTHS, inspection.base)
    (folder / README).write_text(render_preset(preset), encoding="utf-8")


def write_record(facts: Facts, folder: Path) -> None:
    """Page, pictures and data of a model whose weights lie elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    inspection = facts.inspect(folder.name)
    draw_widths(inspection.shape, folder / WIDTHS, inspection.base)
    if facts.run is not None:
        draw_rounds(facts.run, folder / ROUNDS)
    text = json.dumps(facts.to_json(), indent=1, ensure_ascii=False)
    (folder / PAGE_DATA).write_text(text + "\n", encoding="utf-8")
    (folder / README).write_text(render_card(facts, folder.name), encoding="utf-8")


def read_record(folder: Path) -> Facts:
    """What `write_record` kept."""
    return Facts.from_json(json.loads((folder / PAGE_DATA).read_text(encoding="utf-8")))


def facts_of(folder: Path, *, measured: bool) -> Facts:
    """A folder's facts, with its latency; the folder is only read."""
    facts = Facts.of_folder(folder)
    if not measured or facts.latency is not None:
        return facts
    inspection = facts.inspect(folder.name)
    return replace(facts, latency=measure(inspection.config, inspection.base_config))
