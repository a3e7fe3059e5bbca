"""model_cards/ is what the code renders from presets and records, byte for byte."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from oracles import parameter_cost

import schubert_hf
from schubert_hf import PruningConfig, SchuBertConfig
from schubert_hf.cli import parse
from schubert_hf.cost import parse_target
from schubert_hf.hub import Facts, render_card
from schubert_hf.hub.inspection import inspect_preset
from schubert_hf.hub.page import check_card
from schubert_hf.hub.presets import RESULTS, command, render_preset
from schubert_hf.hub.writing import PAGE_DATA, read_record, write_record
from schubert_hf.presets import PRESETS as ALL
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import find_groups
from schubert_hf.shape import Shape

ROOT = Path(schubert_hf.__file__).parent.parent
CARDS = ROOT / "model_cards"
PRESETS = [name for name in ALL if name.startswith("schubert-")]


@pytest.mark.parametrize("preset", PRESETS)
def test_pages_of_the_papers_shapes(preset):
    page = render_preset(preset)
    assert (CARDS / preset / "README.md").read_text(encoding="utf-8") == page
    assert (CARDS / preset / "pictures" / "widths.png").stat().st_size < 100_000
    check_card(page)
    assert "No weights are published here" in page
    assert ("These numbers are the paper's, not ours" in page) == (preset in RESULTS)
    assert f"{SchuBertConfig.from_preset(preset).num_parameters():,}" in page
    for result in RESULTS.get(preset, ()):
        assert f"| {result} |" in page


@pytest.mark.parametrize("record", sorted(CARDS.glob(f"*/{PAGE_DATA}")), ids=lambda path: path.parent.name)
def test_pages_of_results(record):
    page = (record.parent / "README.md").read_text(encoding="utf-8")
    assert page == render_card(read_record(record.parent), record.parent.name)
    assert not re.search(r"/(work|home|tmp|root|Users)/", page + record.read_text(encoding="utf-8"))


def test_a_record_is_all_that_a_page_needs(record, tmp_path):
    facts = Facts.from_json(record)
    write_record(facts, tmp_path / "small")
    assert read_record(tmp_path / "small") == facts
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"README.md", "pictures", PAGE_DATA}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("schubert prune small --text x.txt", "schubert prune org/base --text x.txt"),
        ("python -m schubert_hf prune small", "python -m schubert_hf prune org/base"),
        ("accelerate launch examples/prune.py --target 60% --model small", None),
        ("accelerate launch examples/prune.py --target 60%", "accelerate launch examples/prune.py --target 60%"),
    ],
)
def test_a_base_that_was_a_folder_gets_its_name_on_the_hub(record, monkeypatch, given, wanted):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from cards import with_base

    wanted = wanted or given.replace("--model small", "--model org/base")
    provenance = {**record["run"]["provenance"], "command": given, "base_model": {"name": "small", "hub": False}}
    named = with_base(Facts.from_json({**record, "run": {**record["run"], "provenance": provenance}}), "org/base")
    page = render_card(named, "pruned")
    assert "base_model: org/base" in page
    assert f"\n{wanted}\n" in page


@pytest.mark.parametrize("preset", ["schubert-99m", "schubert-66m"])
def test_the_command_aims_at_the_shape(preset, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import prune

    words = shlex.split(command(inspect_preset(preset)).replace("\\\n", " "))
    assert words[:3] == ["accelerate", "launch", "examples/prune.py"]
    arguments, config = parse("", prune.Arguments, PruningConfig, arguments=words[3:])
    sys.modules.pop("prune")
    assert arguments.model == "google-bert/bert-base-uncased"
    shape, cost = SchuBertConfig.from_preset(preset), parameter_cost(SchuBertConfig(), "SchuBertForPreTraining")
    budget = parse_target(config.target, cost(Shape.of(SchuBertConfig())))
    assert budget == cost(Shape.of(shape))
    if preset == "schubert-66m":  # the hidden size alone: the result has exactly this shape
        groups = find_groups(SchuBertConfig(), config.dimensions)
        import torch

        scores = {group: torch.rand(768) for group in groups}
        plan = select(scores, SchuBertConfig(), cost, budget, multiple_of=config.multiples)
        assert plan.shape == Shape.of(shape)
