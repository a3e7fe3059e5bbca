"""The recipes of the development models are command lines that their scripts accept."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
sys.path.insert(0, str(BENCHMARKS.parent))

import development_models as example  # noqa: E402
import pretrain  # noqa: E402
import run_glue  # noqa: E402

from schubert_hf.cli import parse  # noqa: E402
from schubert_hf.evaluation.finetuning_config import FinetuningConfig  # noqa: E402

KINDS = {"pretrain.py": (pretrain.Arguments,), "run_glue.py": (run_glue.Arguments, FinetuningConfig)}


@pytest.mark.parametrize("name", example.RECIPES)
def test_the_scripts_take_the_recipes(name):
    script, *words = example.Arguments(minilm="mini", text="text", data="glue", threads=1).command(name)
    (arguments, *_) = parse("", *KINDS[Path(script).name], arguments=words)
    assert arguments.threads == 1
    assert Path(arguments.output_dir).name == name
    assert (arguments.model == "mini") == (name != "characters")
    assert Path(script).exists()


def test_a_dry_run_prints_and_makes_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "models"
    monkeypatch.setattr(sys, "argv", ["x", "--dry-run", "--output-dir", str(folder), "--models", "mrpc,characters"])
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert ["--task mrpc" in line for line in lines] == [True, False]
    assert not folder.exists()


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="`models` has large; allowed is minilm, mrpc, sst2, rte, characters"):
        example.Arguments(models="large")
