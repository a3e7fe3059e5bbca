"""Tables in the terminal: the rows of the page, without its pictures."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from schubert_hf import SchuBertConfig
from schubert_hf.hub.inspection import Inspection
from schubert_hf.hub.tables import size_table, width_table
from schubert_hf.pruning.result import Progress, RoundRecord
from schubert_hf.report import print_figures, print_inspection
from schubert_hf.shape import Shape

RECORD = Path(__file__).parent / "hub" / "record.json"
SCRIPT = """
import json, sys
from schubert_hf.hub.inspection import inspect
from schubert_hf.shape import Shape
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.result import PruningResult, RoundRecord
from schubert_hf.evaluation.results import Evaluation, Results
from schubert_hf.report import print_inspection, print_report, print_results

run = json.load(open(sys.argv[1]))["run"]
source, rounds = Shape.from_json(run["source"]), tuple(RoundRecord.from_json(one) for one in run["rounds"])
plans = (PruningPlan.from_kept(source, {}),)
print_report(PruningResult(None, source, rounds, plans, run["unit"], None))
print_inspection(inspect("schubert-66m"))
mlm = Evaluation(task="mlm", dataset="text", task_type="fill-mask", metrics={"loss": [3.5]})
print_results(Results({"name": "small", "parameters": 5}, (mlm,)))
assert "matplotlib" not in sys.modules, "a table needs no pictures"
"""


@pytest.mark.slow
def test_reports_are_printed_without_matplotlib():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(RECORD)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5.24M -> 3.14M parameters (60.0% kept)" in done.stdout
    assert "6.194 → 6.226" in done.stdout
    assert "narrower in h" in done.stdout


@pytest.mark.parametrize("base", [None, Shape.of(SchuBertConfig())])
def test_the_terminal_shows_the_rows_of_the_page(base):
    inspection = Inspection("small", SchuBertConfig.from_preset("schubert-88m"), base)
    out = io.StringIO()
    print_inspection(inspection, Console(file=out, width=200))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines()]
    for table in (width_table(inspection.shape, base), size_table(inspection)):
        for row in table.rows:
            assert [cell.replace("*", "").replace("&emsp;", "") for cell in row] in lines


def test_dropped_layers_are_named():
    base = Shape.of(SchuBertConfig(num_hidden_layers=4))
    shape = base.without_layers({0, 2})
    assert [row[0] for row in width_table(shape, base, (1, 3)).rows] == ["base", "1 → **0**", "3 → **1**"]
    narrower = shape.shrink("f", 1, 72)
    assert [row[2] for row in width_table(narrower, base, (1, 3)).rows] == ["3072", "3072", "**3000**"]


def rounds(*seconds):
    record = json.loads(RECORD.read_text())["run"]["rounds"][0]
    known = {**record, "size_before": 5.24e6, "size": 3.14e6, "learning_rate": 1e-4}
    known |= {"before": {"loss": 4.0}, "after_cut": {"loss": 4.5}, "after_recovery": {"loss": 4.25}}
    made = [RoundRecord.from_json({**known, "number": n, "seconds": {"cut": s}}) for n, s in enumerate(seconds, 1)]
    return Progress(records=made)


def test_a_round_is_summed_up_in_one_line():
    assert rounds(70, 50).describe(3, "parameters") == (
        "round 2/3: 5.24M → 3.14M parameters, held-out loss 4.000 → 4.500 after the cut → 4.250 after recovery, "
        "learning rate 0.0001, 50 s; about 1 min 0 s left"
    )
    assert rounds(3725).describe(1, "FLOPs").endswith("1 h 2 min")
    untrained = rounds(1)
    untrained.records[0] = replace(untrained.records[0], learning_rate=None)
    assert untrained.describe(1, "FLOPs").endswith("held-out loss 4.000 → 4.500 after the cut, 1 s")


def test_figures_of_an_evaluation_say_what_they_count(capsys):
    print_figures("small", {"text": {"logits": 0.5, "mean cosine": 0.25, "texts": 1200}})
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("as the dense model", "0.5000", "mean cosine", "0.2500", "1,200"))
    assert "logits" not in shown
