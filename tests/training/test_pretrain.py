"""examples/pretrain.py from end to end: trains, stops, goes on, and leaves a folder that opens."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator
from forks import Fork
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase
from watching import spoiling

from schubert_hf import SchuBertForPreTraining
from schubert_hf.run.checkpoint import MODEL, newest_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain.py"
SMALL = {
    "steps": 8,
    "batch_size": 4,
    "max_length": 32,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 14,
    "vocab_size": 120,
    "dropout": 0.1,
    "warmup_steps": 2,
    "save_steps": 3,
    "eval_examples": 6,
}
# Sends itself a signal in the middle of step 5.
INTERRUPTED = """
import os, runpy, signal, sys
from accelerate import Accelerator
clip, steps = Accelerator.clip_grad_norm_, []
def interrupted(*arguments):
    steps.append(arguments)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGINT)
    return clip(*arguments)
Accelerator.clip_grad_norm_ = interrupted
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
Run = Callable[..., Path]


def command(*flags: str, **changes: object) -> list[str]:
    settings = {**SMALL, **changes}
    named = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [str(EXAMPLE), *named, *flags]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain_example"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example: ModuleType, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the script's `main` in this process; returns the output folder."""

    def call(output: str, *flags: str, **changes: object) -> Path:
        monkeypatch.setattr(
            sys, "argv", command(*flags, **{"text": text_file, "output_dir": tmp_path / output, **changes})
        )
        example.main()
        return tmp_path / output

    return call


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(output / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000008"
    return SchuBertForPreTraining.from_pretrained(checkpoint / MODEL).state_dict()


def assert_same(one: Path, other: Path) -> None:
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_leaves_a_model_that_opens(run: Run, tmp_path: Path) -> None:
    output = run("out")
    files = {path.name for path in output.iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "pretraining.json"}
    assert files - {"checkpoints"} == {
        path.name for path in output.iterdir() if path.suffix in {".json", ".safetensors"}
    }
    assert not list(tmp_path.rglob("*.writing"))
    model, tokenizer = SchuBertForPreTraining.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert model.dtype == torch.float32
    assert len(tokenizer) == model.config.vocab_size == 120
    for name, value in final_weights(output).items():
        assert torch.equal(model.state_dict()[name], value.half().float())
    inputs = tokenizer("the [MASK] sees", return_tensors="pt")
    assert AutoModelForMaskedLM.from_pretrained(output)(**inputs).logits.shape == (*inputs["input_ids"].shape, 120)

    report = json.loads((output / "pretraining.json").read_text())
    assert [record["step"] for record in report["evaluations"]] == [3, 6, 8]
    assert report["parameters"] == model.num_parameters()
    assert report["arguments"]["seed"] == 0
    assert 0 < report["unigram_loss"] < 6
    assert report["seconds"] > 0


@pytest.mark.slow
def test_interrupted_then_resumed_equals_uninterrupted(run: Run, text_file: Path, tmp_path: Path) -> None:
    through = run("through")
    stopped = Fork("-c", INTERRUPTED, *command(text=text_file, output_dir=tmp_path / "stopped")).end()
    assert stopped.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    folder = tmp_path / "stopped" / "checkpoints"
    assert [path.name for path in sorted(folder.iterdir())] == ["step-00000003", "step-00000006"]
    assert not (tmp_path / "stopped" / "config.json").exists()

    # One that was being written when the machine failed.
    shutil.copytree(folder / "step-00000006", folder / "step-00000007")
    (folder / "step-00000007" / "state.json").unlink()
    assert_same(run("stopped", "--resume"), through)
    assert (tmp_path / "stopped" / "config.json").exists()


@pytest.mark.slow
def test_sigterm_is_a_clean_stop_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, steps = Accelerator.clip_grad_norm_, []

    def interrupted(*arguments: object) -> torch.Tensor:
        steps.append(arguments)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return clip(*arguments)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", interrupted)
    with pytest.raises(SystemExit) as caught:
        run("out")
    assert caught.value.code == 143
    assert "Resume it with --resume" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000002"]
    with pytest.raises(SystemExit, match="holds checkpoints of an earlier run"):
        run("out")
    with pytest.raises(SystemExit, match=r"`learning_rate` was 0\.001 and is 0\.5"):
        run("out", "--resume", learning_rate=0.5)
    with pytest.raises(SystemExit, match="`vocab_size` was 120 and is 90"):
        run("out", "--resume", vocab_size=90)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoints"]


def test_one_bad_step_halves_the_learning_rate(example: ModuleType, text_file: Path, tmp_path: Path) -> None:
    accelerator, folder = spoiling(1, number=4), {"text": [str(text_file)], "output_dir": str(tmp_path)}
    example.pretrain(example.Arguments(**SMALL, **folder), accelerator)
    report = json.loads((tmp_path / "pretraining.json").read_text())
    rates = [(step.number, step.rate) for step in accelerator.steps]
    assert report["halved"] == ["pretraining"]
    assert [step for step, _ in rates] == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7]  # back to the checkpoint of step 3
    first, second = (rate for step, rate in rates if step == 4)
    assert second == pytest.approx(first / 2)
    assert [record["step"] for record in report["evaluations"]] == [3, 6, 8]


def test_trains_onwards_from_a_bert_without_heads(
    run: Run, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=14,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    output = run("out", model=tmp_path / "bert", steps=2, dropout=0.0)
    again = SchuBertForPreTraining.from_pretrained(output)
    assert again.config.hidden_sizes == [12]
    assert again.config.hidden_dropout_prob == 0.0
    assert AutoTokenizer.from_pretrained(output).get_vocab() == tokenizer.get_vocab()
    assert "Held-out masked-LM loss" in capsys.readouterr().out

    with pytest.raises(SystemExit, match=r"`max_length` is 64; the model .* has room for 32"):
        run("other", model=tmp_path / "bert", max_length=64)


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        (["--resume"], {}, "holds no whole checkpoint to resume"),
        ([], {"text": "nowhere.txt"}, "`nowhere.txt` does not exist"),
        ([], {"text": "nobody/nothing"}, "cannot be loaded as a dataset"),
        ([], {"eval_text": "nowhere.txt"}, "`nowhere.txt` does not exist"),
        ([], {"model": "./nowhere"}, "`./nowhere` cannot be loaded"),
        ([], {"num_attention_heads": 5}, "num_attention_heads"),
        ([], {"max_length": 4}, "`max_length` is 4"),
        ([], {"batch_size": 0}, "`batch_size` is 0"),
        ([], {"save_steps": 0}, "`save_steps` is 0"),
        ([], {"schedule": "zigzag"}, "`schedule` is 'zigzag'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_model(
    run: Run, tmp_path: Path, flags: list[str], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as caught:
        run("out", *flags, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_with_a_model_is_refused_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="already holds a model"):
        run("out", text="nowhere.txt")
