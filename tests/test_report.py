"""Tables in the terminal: the rows of the page, without its pictures."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from schubert_hf import SchuBertConfig
from schubert_hf.hub.inspection import Inspection
from schubert_hf.hub.tables import size_table, width_table
from schubert_hf.report import print_inspection
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
