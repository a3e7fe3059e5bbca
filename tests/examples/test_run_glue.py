"""examples/run_glue.py as a user runs it: real processes, official files, no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ["-m", "accelerate.commands.launch"]
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUICK = ["--max-length", 24, "--batch-size", 8, "--epochs", 2, "--learning-rate", "1e-3", "--threads", 1]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
NOUNS, VERBS = ["fox", "dog", "bird", "king", "river", "garden"], ["saw", "found", "lost", "painted"]


def glue(*arguments: object, by: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(by or []), "examples/run_glue.py", *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def write(path: Path, *rows: tuple[object, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def sentence(number: int) -> str:
    return f"The {NOUNS[number % 6]} {VERBS[number % 4]} a {NOUNS[number // 2 % 6]}."


@pytest.fixture
def data(tmp_path) -> Path:
    """SST-2, MNLI and STS-B in the official layout, some dozens of examples each."""
    root, numbers = tmp_path / "glue", range(40)
    answers = ("entailment", "neutral", "contradiction")
    files = {
        "SST-2/{}.tsv": [("sentence", "label"), *((sentence(n), n % 2) for n in numbers)],
        "STS-B/{}.tsv": [
            ("index", "sentence1", "sentence2", "score"),
            *((n, sentence(n), sentence(n + n % 6), f"{5 - n % 6:.3f}") for n in numbers),
        ],
        "MNLI/{}.tsv": [
            ("index", "sentence1", "sentence2", "label1", "gold_label"),
            *((n, sentence(n), sentence(n + n % 3), "neutral", answers[n % 3]) for n in numbers),
        ],
    }
    for name, rows in files.items():
        dev = ("dev_matched", "dev_mismatched") if name.startswith("MNLI") else ("dev",)
        write(root / name.format("train"), *rows)
        for number, part in enumerate(dev):
            write(root / name.format(part), *rows[: 12 + number])
    return root


def results(output: Path) -> dict[tuple[str, str], dict]:
    found = json.loads((output / "results.json").read_text())["results"]
    return {(each["task"], each["split"]): each for each in found}


def test_tasks_and_seeds_leave_models_and_results(bert, data, tmp_path):
    output = tmp_path / "tuned"
    given = ["--model", bert, "--data", data, "--output-dir", output, *QUICK]
    run = glue(*given, "--task", "SST-2,mnli,stsb", "--seeds", "0,3", by=LAUNCH)
    assert run.returncode == 0, run.stderr[-3000:]
    found = results(output)
    assert list(found) == [
        ("sst2", "validation"),
        ("mnli", "validation_matched"),
        ("mnli", "validation_mismatched"),
        ("stsb", "validation"),
    ]
    assert [(each["examples"], each["train_examples"]) for each in found.values()] == [
        (11, 40),
        (11, 40),
        (12, 40),
        (11, 40),
    ]
    assert {name: list(each["metrics"]) for (name, _), each in found.items()} == {
        "sst2": ["accuracy"],
        "mnli": ["accuracy"],
        "stsb": ["pearsonr", "spearmanr"],
    }
    for each in found.values():
        assert each["seeds"] == [0, 3]
        assert all(len(values) == 2 for values in each["metrics"].values())
        assert "not comparable with published results" in each["notes"]
        assert str(tmp_path) not in json.dumps(each), "where files lie is nobody's business"
    assert "40 of 67,349" in found["sst2", "validation"]["notes"]
    for task, labels in {"sst2": 2, "mnli": 3, "stsb": 1}.items():
        heads = [load_file(output / task / f"seed-{seed}" / "model.safetensors") for seed in (0, 3)]
        assert [head["classifier.weight"].shape[0] for head in heads] == [labels] * 2
        assert not torch.equal(heads[0]["classifier.weight"], heads[1]["classifier.weight"])
    assert json.loads((output / "mnli/seed-0/config.json").read_text())["id2label"]["2"] == "contradiction"
    for word in ("sst2", "mnli", "stsb", "accuracy", "pearsonr"):
        assert word in run.stdout, run.stdout

    # What was trained is evaluated to the same numbers; what is there is not written over, and resuming reads it.
    again = glue("--model", output / "sst2" / "seed-3", "--data", data, "--task", "sst2", "--evaluate-only",
                 "--max-length", 24, "--output-dir", tmp_path / "evaluated", "--metrics", "f1")  # fmt: skip
    assert again.returncode == 0, again.stderr[-3000:]
    alone = results(tmp_path / "evaluated")["sst2", "validation"]
    assert alone["metrics"]["accuracy"] == found["sst2", "validation"]["metrics"]["accuracy"][1:]
    assert "f1" in alone["metrics"]
    assert alone["train_examples"] is None
    refused = glue(*given, "--task", "sst2", "--seeds", "0,3")
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    assert "Traceback" not in refused.stderr
    before = (output / "sst2/seed-0/model.safetensors").stat().st_mtime_ns
    resumed = glue(*given, "--task", "SST-2,mnli,stsb", "--seeds", "0,3", "--resume")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert (output / "sst2/seed-0/model.safetensors").stat().st_mtime_ns == before
    assert {key: each["metrics"] for key, each in results(output).items()} == {
        key: each["metrics"] for key, each in found.items()
    }


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(bert, data, tmp_path):
    given = ["--model", bert, "--data", data, "--task", "sst2,stsb", *QUICK, "--epochs", 12, "--save-steps", 2]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert glue(*given, "--output-dir", whole).returncode == 0
    command = [sys.executable, "examples/run_glue.py", *given, "--output-dir", stopped]
    run = subprocess.Popen(
        [*map(str, command)], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while run.poll() is None and not list((stopped / "sst2").glob("*/checkpoints/step-*")):
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143, errors[-3000:]
    assert "go on with --resume" in errors
    assert "Traceback" not in errors
    assert not (stopped / "stsb").exists()
    again = glue(*given, "--output-dir", stopped, "--resume")
    assert again.returncode == 0, again.stderr[-3000:]
    for task in ("sst2", "stsb"):
        one, other = (load_file(each / task / "seed-0" / "model.safetensors") for each in (whole, stopped))
        assert all(torch.equal(one[name], other[name]) for name in one)
        metrics = [results(each)[task, "validation"]["metrics"] for each in (whole, stopped)]
        assert metrics[0] == metrics[1]


def test_two_processes_are_one_run(bert, data, tmp_path):
    # Dropout draws another mask on each process, so there is none here.
    model = tmp_path / "model"
    shutil.copytree(bert, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    given = ["--model", model, "--data", data, "--task", "sst2,stsb", *QUICK]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = glue(*given, "--output-dir", one)
    both = glue(*given, "--output-dir", two, by=TWO_PROCESSES)
    assert alone.returncode == 0, alone.stderr[-3000:]
    # A finished gloo run sometimes aborts at interpreter exit: what it wrote counts.
    assert (two / "results.json").exists(), both.stderr[-3000:]
    assert results(two)["sst2", "validation"]["run"]["processes"] == 2
    for task in ("sst2", "stsb"):
        records = [json.loads((each / task / "seed-0" / "finetuning.json").read_text()) for each in (one, two)]
        losses = [[step["train_loss"] for step in record["evaluations"]] for record in records]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        first, second = (results(each)[task, "validation"]["metrics"] for each in (one, two))
        for name, values in first.items():
            assert second[name] == pytest.approx(values, abs=1e-3)
    assert len(re.findall("Saved in", both.stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "sst3"], "`task` is 'sst3'; allowed are cola, sst2"),
        (["--task", "qnli"], "has neither a folder QNLI"),
        (["--seeds", "0,0"], "`seeds` is '0,0'"),
        (["--epochs", "0"], "`epochs` is 0"),
        (["--max-length", "99"], "`max_length` is 99"),
        (["--max-train-examples", "0"], "At most 0 examples"),
        (["--metrics", "no_such_metric"], "no_such_metric"),
        (["--model", "."], "has no tokenizer"),
        (["--evaluate-only"], "no trained head"),
        (["--task", "sst2,label"], "line 4: the label is 'two'; allowed are 0, 1"),
        (["--task", "sst2,column"], "lacks the columns ['Quality']"),
        (["--task", "sst2,empty"], "holds no examples"),
        (["--task", "sst2,dev_only"], "has no train*.tsv for `train` of qnli"),
        (["--task", "sst2,headless"], "no tokenizer"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_training(arguments, words, bert, data, tmp_path, monkeypatch, capsys):
    write(data / "WNLI/train.tsv", ("index", "sentence1", "sentence2", "label"), (0, "a", "b", 1), (1, "a", "b", 0),
          (2, "a", "b", "two"))  # fmt: skip
    write(data / "MRPC/train.tsv", ("Kind", "#1 String", "#2 String"), (1, "a", "b"))
    write(data / "RTE/train.tsv", ("index", "sentence1", "sentence2", "label"))
    for folder in ("WNLI", "MRPC", "RTE"):
        shutil.copy(data / folder / "train.tsv", data / folder / "dev.tsv")
    given = {"--model": str(bert), "--data": str(data), "--task": "sst2", "--output-dir": str(tmp_path / "out")}
    tasks = {"label": "wnli", "column": "mrpc", "empty": "rte", "dev_only": "qnli"}
    if "headless" in arguments[-1]:
        shutil.copytree(bert, tmp_path / "bare")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "bare" / name).unlink()
        arguments = ["--model", str(tmp_path / "bare")]
    if "dev_only" in arguments[-1]:
        write(data / "QNLI/dev.tsv", ("index", "question", "sentence", "label"), (0, "a", "b", "entailment"))
    flags = [word for word in arguments if word == "--evaluate-only"]
    pairs = [word for word in arguments if word not in flags]
    given |= {"--max-length": "24"} | dict(zip(pairs[::2], pairs[1::2], strict=True))
    given["--task"] = ",".join(tasks.get(name, name) for name in given["--task"].split(","))
    monkeypatch.setattr(sys, "argv", ["run_glue.py", *(word for pair in given.items() for word in pair), *flags])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import run_glue as example

    with pytest.raises(SystemExit) as stop:
        example.main()
    assert words in str(stop.value)
    assert "\n" not in str(stop.value)
    assert not list((tmp_path / "out").rglob("*.json"))
    assert not list((tmp_path / "out").rglob("*.safetensors"))
