"""Every script tells of its settings."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(
    path.relative_to(EXAMPLES)
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("benchmarks/*.py"))
    if "parse(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_help(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str((EXAMPLES / script).parent))
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "(default: " in shown
    assert "%%" not in shown


def test_a_task_has_a_learning_rate_of_its_own(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for words, rate in (([], "0.0005"), (["--task", "sst2"], "5e-05")):
        monkeypatch.setattr(sys, "argv", ["prune.py", *words, "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(EXAMPLES / "prune.py"), run_name="__main__")
        shown = " ".join(capsys.readouterr().out.split())
        assert f"Peak learning rate of the recovery. (default: {rate})" in shown


def test_there_are_scripts():
    assert {Path("prune.py"), Path("run_glue.py"), Path("benchmarks/compare_methods.py")} <= set(SCRIPTS)
