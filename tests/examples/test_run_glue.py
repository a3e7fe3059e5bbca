"""examples/run_glue.py, run_squad.py and prune.py --task as a user runs them: real processes, files, no network."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from forks import Ended, Fork
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--epochs", "2", "--batch-size", "8", "--max-length", "16", "--learning-rate", "1e-3"]
SQUAD = ["--max-length", "24", "--stride", "4", "--max-question-length", "6", "--batch-size", "8"]
SQUAD += ["--epochs", "30", "--eval-steps", "20", "--learning-rate", "1e-2"]


def start(script: str, *arguments: object, processes: int = 1) -> Fork:
    environment = {"ACCELERATE_USE_CPU": "true"}
    return Fork(f"examples/{script}", *arguments, cwd=ROOT, environment=environment, processes=processes)


def run(script: str, *arguments: object, processes: int = 1) -> Ended:
    return start(script, *arguments, processes=processes).end()


@pytest.fixture(scope="session")
def glue(tmp_path_factory) -> Path:
    """SST-2 (labels that follow from a word), STS-B and MNLI with both of its validation sets, in official layouts."""
    root = tmp_path_factory.mktemp("glue")
    nouns = ["fox", "dog", "bird", "king"]
    for folder, header, row in (
        ("SST-2", "sentence\tlabel", lambda n: f"The {nouns[n % 4]} saw a {nouns[n % 3]}.\t{n % 2}"),
        (
            "STS-B",
            "index\tsentence1\tsentence2\tscore",
            lambda n: f"{n}\tThe {nouns[n % 4]}.\tThe dog.\t{(n % 4) + 0.5}",
        ),
        (
            "MNLI",
            "index\tsentence1\tsentence2\tgold_label",
            lambda n: f"{n}\tThe {nouns[n % 4]}.\tThe dog.\t{('neutral', 'entailment', 'contradiction')[n % 3]}",
        ),
    ):
        (root / folder).mkdir()
        files = {"train": 44, "dev": 13} if folder != "MNLI" else {"train": 30, "dev_matched": 9, "dev_mismatched": 12}
        for name, size in files.items():
            lines = [header, *(row(n) for n in range(size))]
            (root / folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def squad(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("squad")
    context = "The fox saw a dog. The king found a letter. A bird lost the ship."
    for name, version in (("train-v1.1.json", 1), ("dev-v1.1.json", 1), ("train-v2.0.json", 2), ("dev-v2.0.json", 2)):
        questions = [
            {
                "id": f"{name}{n}",
                "question": f"What saw {n}?",
                "answers": [{"text": "dog", "answer_start": 14}] if version == 1 or n % 3 else [],
                "is_impossible": version == 2 and not n % 3,
            }
            for n in range(9)
        ]
        content = {"version": name, "data": [{"title": "x", "paragraphs": [{"context": context, "qas": questions}]}]}
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def tuned(tmp_path_factory, bert, glue) -> Path:
    """SST-2 with two seeds and STS-B, in one run."""
    output = tmp_path_factory.mktemp("tuned") / "out"
    done = run("run_glue.py", "--model", bert, "--task", "sst2,stsb,mnli", "--data", glue, "--seeds", "0,3", *QUICK,
               "--output-dir", output)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "44 of 67,349 examples of sst2 train; 13 of 872 examples of sst2 validation" in done.stdout.replace(
        "\n", " "
    )
    return output


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_results_tell_all(tuned):
    found = json.loads((tuned / "results.json").read_text())
    by_split = {(result["task"], result["split"]): result for result in found["results"]}
    assert list(by_split) == [
        ("sst2", "validation"),
        ("stsb", "validation"),
        ("mnli", "validation_matched"),
        ("mnli", "validation_mismatched"),
    ]
    sst2 = by_split["sst2", "validation"]
    assert sst2["seeds"] == [0, 3]
    assert len(sst2["metrics"]["accuracy"]) == 2
    assert all(0 <= value <= 1 for value in sst2["metrics"]["accuracy"])
    assert (sst2["examples"], sst2["train_examples"]) == (13, 44)
    assert "not comparable" in sst2["notes"]
    assert list(by_split["stsb", "validation"]["metrics"]) == ["pearsonr", "spearmanr"]
    assert sst2["run"]["settings"]["learning_rate"] == 1e-3
    assert sst2["run"]["command"].startswith("accelerate launch examples/run_glue.py")
    assert str(tuned) not in json.dumps(found)  # no paths of this machine
    assert found["average"] is None
    config = json.loads((tuned / "mnli" / "seed-3" / "config.json").read_text())
    assert config["id2label"] == {"0": "entailment", "1": "neutral", "2": "contradiction"}


@pytest.mark.slow
def test_two_processes_are_one(tuned, bert, glue, tmp_path):
    given = ["--model", bert, "--task", "sst2", "--data", glue, *QUICK, "--output-dir", tmp_path / "two"]
    done = run("run_glue.py", *given, processes=2)
    path = tmp_path / "two" / "results.json"
    assert path.exists(), done.stderr[-3000:]  # gloo sometimes aborts at the interpreter's exit, after all is done
    (two,) = json.loads(path.read_text())["results"]
    assert two["run"]["processes"] == 2
    one, other = (json.loads((folder / "sst2" / "seed-0" / "finetuning.json").read_text())
                  for folder in (tuned, tmp_path / "two"))  # fmt: skip
    # Dropout differs between processes, so the losses do, a little; without it they are equal: see the loop's tests.
    assert [entry["step"] for entry in one["evaluations"]] == [entry["step"] for entry in other["evaluations"]]
    losses = [[entry["train_loss"] for entry in record["evaluations"]] for record in (one, other)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.slow
def test_sigterm_then_resume_is_the_uninterrupted_run(tuned, bert, glue, tmp_path):
    arguments = ["--model", bert, "--task", "sst2,stsb,mnli", "--data", glue, "--seeds", "0,3", *QUICK]
    arguments += ["--output-dir", tmp_path / "out"]
    process = start("run_glue.py", *arguments)
    while process.poll() is None and not list(tmp_path.glob("out/sst2/seed-3/checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, _, errors = process.end()
    assert code == 143, errors[-2000:]
    assert "Resume it with --resume" in errors
    assert "Traceback" not in errors
    refused = run("run_glue.py", *arguments)
    assert refused.returncode == 1
    assert "already holds a model" in refused.stderr
    changed = tmp_path / "other"
    shutil.copytree(glue, changed)
    (changed / "SST-2" / "train.tsv").write_text((glue / "SST-2" / "train.tsv").read_text().replace("fox", "ship"))
    refused = run("run_glue.py", *(changed if word == glue else word for word in arguments), "--resume")
    assert refused.returncode == 1
    assert "belongs to another run: `data` was" in refused.stderr
    again = run("run_glue.py", *arguments, "--resume")
    assert again.returncode == 0, again.stderr[-2000:]
    for folder in ("sst2/seed-0", "sst2/seed-3", "mnli/seed-0"):
        one, other = weights(tuned / folder), weights(tmp_path / "out" / folder)
        assert all((one[name] == other[name]).all() for name in one)
    metrics = [[one["metrics"] for one in json.loads((folder / "results.json").read_text())["results"]]
               for folder in (tuned, tmp_path / "out")]  # fmt: skip
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_a_tuned_model_is_pruned_on_its_task_and_evaluated(tuned, glue, tmp_path):
    model = tuned / "sst2" / "seed-0"
    given = ["--task", "sst2", "--data", glue, "--max-length", 16]
    done = run("prune.py", "--model", model, *given, "--output-dir", tmp_path / "pruned", "--target", "0.7",
               "--rounds", 1, "--recovery-steps", 2, "--batch-size", 4, "--report-to", "none")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AutoModelForSequenceClassification" in done.stdout
    assert "--evaluate-only" in done.stdout
    record = json.loads((tmp_path / "pruned" / "pruning.json").read_text())
    assert record["size"] <= 0.7 * record["source_size"]
    assert record["provenance"]["train_data"] == {
        "name": "nyu-mll/glue",
        "hub": True,
        "config": "sst2",
        "examples": 44,
    }
    after = record["rounds"][-1]["after_recovery"]
    done = run(
        "run_glue.py", "--model", tmp_path / "pruned", *given, "--evaluate-only", "--output-dir", tmp_path / "e"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = json.loads((tmp_path / "e" / "results.json").read_text())["results"]
    assert result["metrics"]["accuracy"] == [pytest.approx(after["classification_accuracy"])]
    assert result["seeds"] == []
    page = (tmp_path / "pruned" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in page
    assert "are masked" not in page


@pytest.mark.slow
@pytest.mark.parametrize("task", ["squad", "squad_v2"])
def test_squad_through_the_whole_path(task, tuned, bert, squad, tmp_path):
    output = tmp_path / "out"
    done = run("run_squad.py", "--model", bert, "--task", task, "--data", squad, *SQUAD, "--output-dir", output)
    assert done.returncode == 0, done.stderr[-3000:]
    model = output / task / "seed-0"
    (first,) = json.loads((output / "results.json").read_text())["results"]
    done = run("run_squad.py", "--model", model, "--task", task, "--data", squad, *SQUAD, "--evaluate-only",
               "--predictions", tmp_path / "answers", "--output-dir", tmp_path / "again")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (again,) = json.loads((tmp_path / "again" / "results.json").read_text())["results"]
    assert again["metrics"].keys() == first["metrics"].keys()
    for name, (value,) in again["metrics"].items():
        assert value == pytest.approx(first["metrics"][name][0], abs=1e-4)
    assert first["metrics"]["f1"][0] >= 60  # every answer there is, is the same: that can be learnt
    answers = json.loads((tmp_path / "answers" / "predictions.json").read_text())
    assert set(answers) == {f"dev-v{'1.1' if task == 'squad' else '2.0'}.json{n}" for n in range(9)}
    if task == "squad_v2":
        done = run("prune.py", "--model", model, "--task", task, "--data", squad, "--max-length", 24, "--rounds", 1,
                   "--target", "0.8", "--recovery-steps", 1, "--batch-size", 4, "--report-to", "none",
                   "--output-dir", tmp_path / "pruned")  # fmt: skip
        assert "at least" in done.stderr  # windows of 24 word pieces leave no room beside questions of 64


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("run_glue.py", {"--task": "sst3"}, "allowed are cola"),
        ("run_glue.py", {"--task": "qnli"}, "neither a folder QNLI nor"),
        ("run_glue.py", {"--seeds": "0,x"}, "`seeds` is '0,x'"),
        ("run_glue.py", {"--max-length": "200"}, "the model reads at most 24"),
        ("run_glue.py", {"--max-train-examples": "0"}, "allowed is at least 1"),
        ("run_glue.py", {"--metrics": "no-such-metric"}, "`no-such-metric` is not a metric"),
        ("run_glue.py", {"--metrics": "squad"}, "does not suit sst2"),
        ("run_glue.py", {"--metrics": "accuracy", "--task": "stsb"}, "does not suit stsb"),
        ("run_glue.py", {"--model": "nowhere/at-all"}, "`nowhere/at-all`"),
        ("run_glue.py", {"--evaluate-only": None}, "no trained head for SequenceClassification"),
        ("run_squad.py", {"--task": "squad3"}, "allowed are squad, squad_v2"),
        ("run_squad.py", {"--no-answer-threshold": "2"}, "allowed is a number from 0 to 1"),
        ("run_squad.py", {"--predictions": "x"}, "is for `--evaluate-only`"),
        ("prune.py", {"--task": "paper"}, "a model is pruned on one"),
        ("prune.py", {"--task": "nothing"}, "allowed is one of cola"),
        ("prune.py", {"--streaming": None}, "brings its own examples"),
        ("prune.py", {}, "no trained head for SequenceClassification"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(
    script, arguments, words, bert, glue, tmp_path, monkeypatch
) -> None:
    task = "squad" if script == "run_squad.py" else "sst2"
    given = {"--model": bert, "--task": task, "--data": glue, "--output-dir": tmp_path / "out", "--max-length": "16"}
    given |= {"--stride": "4", "--max-question-length": "6"} if script == "run_squad.py" else {}
    pairs = {**given, **arguments}.items()
    words_given = [str(word) for pair in pairs for word in pair if word is not None]
    monkeypatch.setattr(sys, "argv", [script, *words_given])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    module = __import__(script.removesuffix(".py"))
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert words in str(exit_.value)
    assert not list(tmp_path.rglob("*.safetensors"))
