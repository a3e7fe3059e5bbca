"""The study as a user runs it: cells on disk, a run that goes on, tables whose numbers are those of the cells."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from forks import Ended, run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "benchmarks" / "compare_methods.py"
sys.path.insert(0, str(SCRIPT.parent))

import compare_methods as example  # noqa: E402
from study.rows import ROWS  # noqa: E402
from study.tables import loss_table, summarize, width_table  # noqa: E402

STEPS = ["--alpha-steps", "1", "--recovery-steps", "1", "--batch-size", "4", "--eval-examples", "8"]
STEPS += ["--sizes", "80,60", "--max-length", "24", "--multiple-of", "1"]


def compare(*arguments: object, processes: int = 1) -> Ended:
    return run(SCRIPT, *STEPS, "--threads", "1", *arguments, cwd=ROOT, processes=processes)


def finished(output: str) -> list[str]:
    """Row and size of the cells that a run says it made."""
    return [line.split("] ")[1].split(":")[0] for line in output.splitlines() if line.startswith("[")]


@pytest.fixture
def in_process(monkeypatch, capsys):
    """The script in this process, which has its libraries loaded; returns what it printed."""

    def run(*arguments: object) -> str:
        words = [*STEPS, "--threads", "1", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        capsys.readouterr()
        example.main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_cells_are_made_once_and_each_row_can_be_had_alone(bert, text, tmp_path, in_process):
    output = tmp_path / "study"
    given = ["--model", bert, "--text", text, "--eval-text", text, "--output-dir", output]
    first = compare(*given, "--methods", "schubert-k,uniform,scratch", "--seeds", "0")
    # Shapes come before what is trained in them.
    rows = ["schubert-k", "schubert-all", "uniform", "scratch"]
    assert first.returncode == 0, first.stderr
    made = finished(first.stdout)
    assert sorted(made) == sorted(f"{row}, seed 0, {size} %" for row in rows for size in (80, 60))
    assert made.index("schubert-all, seed 0, 60 %") < made.index("scratch, seed 0, 80 %")
    cells = {path.stem: json.loads(path.read_text()) for path in (output / "cells").glob("*.json")}
    assert "the smallest that removing" in cells["schubert-k-seed0-80"]["unreachable"]
    assert cells["scratch-seed0-60"]["shape"] == cells["schubert-all-seed0-60"]["shape"]
    dense = json.loads((output / "results.json").read_text())["parameters"]
    for row in ("schubert-all", "uniform"):
        large, small = (cells[f"{row}-seed0-{size}"] for size in (80, 60))
        assert 0.7 * dense < large["parameters"] <= 0.8 * dense
        assert small["before"] == large["after_recovery"]
    # As many steps for all: alphas are steps too.
    steps = {name: cells[f"{name}-seed0-80"]["config"] for name in ("schubert-all", "uniform")}
    assert (steps["schubert-all"]["recovery_steps"], steps["uniform"]["recovery_steps"]) == (1, 2)
    assert not list((output / "models").glob("uniform*"))  # nothing needs them any more
    for name in ("table.md", "widths.md", "loss-after-cut.png", "loss-after-recovery.png", "widths.png"):
        assert (output / name).stat().st_size > 100
    smallest = cells["schubert-k-seed0-60"]["smallest"]
    assert f"{smallest:_}" in cells["schubert-k-seed0-80"]["unreachable"]
    assert f"not reachable (smallest {100 * smallest / dense:.1f} %)" in (output / "table.md").read_text()

    # The command of a cell makes it again, elsewhere; what it takes from the machine stands beside it.
    words = shlex.split(cells["uniform-seed0-60"]["command"])
    assert words[-4:] == ["--methods", "uniform", "--seeds", "0"]
    assert "--alpha-steps" in words
    assert {"machine", "versions", "processes"} <= set(cells["uniform-seed0-60"])

    # A lost or damaged cell is made again, from the dense model if need be; the others are not.
    path = output / "cells" / "uniform-seed0-60.json"
    for damage in (path.unlink, lambda: path.write_text(path.read_text()[:100])):
        damage()
        assert finished(in_process(*given, "--methods", "uniform", "--seeds", "0")) == ["uniform, seed 0, 60 %"]
        again = json.loads(path.read_text())
        assert again["after_recovery"] == pytest.approx(cells["uniform-seed0-60"]["after_recovery"], rel=1e-4)

    with pytest.raises(SystemExit, match="`alpha_steps` was 1 and is 2"):
        in_process(*given, "--methods", "uniform", "--alpha-steps", "2")


@pytest.mark.slow
def test_two_processes_make_one_study(bert, text, tmp_path):
    output = tmp_path / "study"
    given = ["--model", bert, "--text", text, "--eval-text", text, "--output-dir", output, "--sizes", "80"]
    ended = compare(*given, "--methods", "uniform,schubert-k", "--seeds", "0", processes=2)
    # A finished gloo run sometimes aborts at interpreter exit: what it wrote counts.
    assert len(finished(ended.stdout)) == 2, ended.stderr
    cell = json.loads((output / "cells" / "uniform-seed0-80.json").read_text())
    assert cell["processes"] == 2
    assert (output / "table.md").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "best"], "`methods` has best; allowed is"),
        (["--sizes", "40,60"], "give percentages that fall"),
        (["--seeds", "a"], "`seeds` is 'a'; give whole numbers"),
        (["--seeds=-1"], "`seeds` is '-1'; give whole numbers"),
    ],
)
def test_bad_arguments(arguments, words, tmp_path, in_process):
    with pytest.raises(SystemExit) as exit_:
        in_process(*arguments, "--output-dir", tmp_path / "study")
    assert words in str(exit_.value)
    assert not (tmp_path / "study").exists()


def cell(row, seed, size, mlm, **fields):
    losses = {"mlm": mlm, "nsp": 0.5, "mlm_accuracy": 0.25}
    shape = {"hidden_sizes": [8, 8], "filter_sizes": [4, 6], "head_counts": [2, 1], "key_query_sizes": [3, 3]}
    shape |= {"value_sizes": [2, 2]}
    found = {"row": row, "seed": seed, "size": size, "parameters": 600, "shape": shape, "after_recovery": losses}
    return {**found, "after_cut": {**losses, "mlm": mlm + 1}, **fields}


def test_means_and_spreads():
    summary = summarize(
        [
            cell("uniform", 0, 60, 4.0),
            cell("uniform", 1, 60, 4.5),
            cell("random", 0, 60, 3.0),
            cell("uniform", 0, 80, 2.0),
            {"row": "schubert-k", "seed": 0, "size": 60, "unreachable": "too small", "smallest": 890},
            {"row": "random", "seed": 1, "size": 60, "unreachable": "too small"},
        ],
        1000,
    )
    assert [(entry["row"], entry["size"]) for entry in summary] == [
        ("uniform", 80),
        ("random", 60),
        ("uniform", 60),
        ("schubert-k", 60),
    ]
    both = summary[2]
    assert both["seeds"] == 2
    assert both["kept"] == 0.6
    assert both["mlm"] == pytest.approx((4.25, 0.25))
    assert both["mlm_cut"] == pytest.approx((5.25, 0.25))
    assert both["accuracy"] == pytest.approx((0.25, 0))
    table = loss_table(summary, {"mlm": 1.5, "nsp": 0.1, "mlm_accuracy": 0.5}).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| 100 % | dense, as it is | 100.0 % |  | 1.500 |")
    assert table[5].startswith("| 60 % | uniform | 60.0 % | 5.250 ± 0.250 | 4.250 ± 0.250 | 0.500 ± 0.000 |")
    assert table[6].startswith("| 60 % | schubert-k | not reachable (smallest 89.0 %) |")
    assert summary[1]["seeds"] == 1  # of the seeds that got there


def test_widths():
    lines = width_table([cell("uniform", 0, 60, 4.0), cell("uniform", 1, 60, 4.0)], 0).splitlines()
    assert lines[2:] == ["| 60 % | uniform | 8 | 4 6 | 2 1 | 3 | 2 |"]


def test_rows_are_named_once_and_say_what_they_are():
    assert all(row.name == name and row.title for name, row in ROWS.items())
    assert all(row.shapes_of in ROWS for row in ROWS.values() if row.shapes_of is not None)
