"""Every script tells of its settings."""

import runpy
import sys
from pathlib import Path

import pytest

from schubert_hf import PruningConfig
from schubert_hf.cli import parse

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


@pytest.mark.parametrize("words", [[], ["--task", "sst2"], ["--tas", "sst2"]])
def test_the_learning_rate_is_measured_however_a_task_is_named(words, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import prune

    _, config = parse("", prune.Arguments, PruningConfig, arguments=words)
    assert config.recovery_learning_rate is None


def test_there_are_scripts():
    assert {Path("prune.py"), Path("run_glue.py"), Path("benchmarks/compare_methods.py")} <= set(SCRIPTS)
