"""Results of the scripts on a model's page: what is said of them, and what is refused."""

import copy
import json
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from schubert_hf.commands import main
from schubert_hf.evaluation.results import Evaluation, Results, ResultsError
from schubert_hf.hub import Facts, Record, RecordError, render_card
from schubert_hf.hub.evaluations import add_results, eval_result_files, read_evaluations
from schubert_hf.run.provenance import sha256

SST2 = Evaluation(
    task="sst2",
    dataset="nyu-mll/glue",
    config="sst2",
    task_type="text-classification",
    split="validation",
    metrics={"accuracy": [0.90, 0.92, 0.91]},
    seeds=[0, 1, 2],
    examples=872,
    train_examples=6000,
    run={"date": "2026-01-02", "data": "the Hub"},
    notes="6,000 of 67,349 examples of sst2 train: not comparable with published results",
)
SQUAD = Evaluation(
    task="squad_v2",
    dataset="rajpurkar/squad_v2",
    config=None,
    task_type="question-answering",
    split="validation",
    metrics={"f1": [71.25], "exact": [68.5], "HasAns_f1": [60.0], "best_f1_thresh": [0.3], "total": [9.0]},
    seeds=[0],
    examples=9,
)
MLM = Evaluation(
    task="mlm",
    dataset="my.txt",
    config=None,
    task_type="fill-mask",
    split="held out",
    metrics={"loss": [3.5]},
    seeds=[],
    examples=100,
    run={"data": {"name": "my.txt", "hub": False}},
)


OLD_EVALUATION = """[
  {"dataset": "nyu-mll/glue", "task": "mrpc", "task_type": "text-classification", "metric": "f1", "value": 0.9,
   "base_value": 0.95, "split": "validation", "revision": "abc", "date": "2026-01-02", "notes": "3 seeds",
   "std": 0.01},
  {"dataset": "nyu-mll/glue", "task": "mrpc", "task_type": "text-classification", "metric": "accuracy", "value": 0.8},
  {"dataset": "my.txt", "task": "mlm", "task_type": "fill-mask", "metric": "loss", "value": 3.5, "hub": false}
]"""
OLD_RESULTS = """{
  "format": 1,
  "model": {"name": "small", "hub": false, "sha256": "00", "license": "mit", "parameters": 5},
  "results": [
    {"task": "sst2", "dataset": "nyu-mll/glue", "config": "sst2", "task_type": "text-classification",
     "split": "validation", "metrics": {"accuracy": [0.90, 0.92, 0.91]}, "seeds": [0, 1, 2], "examples": 872,
     "train_examples": 6000, "run": {"date": "2026-01-02", "data": "the Hub"},
     "notes": "6,000 of 67,349 examples of sst2 train: not comparable with published results"},
    {"task": "mlm", "dataset": "my.txt", "config": null, "task_type": "fill-mask", "split": "held out",
     "metrics": {"loss": [3.5]}, "seeds": [], "examples": 100, "train_examples": null,
     "run": {"data": {"name": "my.txt", "hub": false}}, "notes": null}
  ],
  "average": null
}"""


def write(path, *results, **model):
    Results({"name": "small", "parameters": 5, **model}, results).write(path)
    return path


@pytest.fixture
def results(folder, tmp_path):
    """Results of the very model in `folder`."""
    weights = sha256(folder / "model.safetensors")
    return lambda *found: write(tmp_path / f"results{len(found)}.json", *found, sha256=weights)


def test_what_is_written_is_read_again(tmp_path):
    path = write(tmp_path / "results.json", SST2, SQUAD, MLM)
    found = Results.read(tmp_path)
    assert found.results == (SST2, SQUAD, MLM)
    assert Results.read(path) == found
    assert json.loads(path.read_text())["average"] is None
    assert SST2.mean() == pytest.approx(0.91)
    assert SST2.std() == pytest.approx(0.01)
    assert SQUAD.std() is None


def test_results_of_one_model_are_merged(tmp_path):
    first = Results({"name": "a"}, (SST2, SQUAD))
    merged = first.updated([replace(SST2, seeds=[5], metrics={"accuracy": [1.0]})])
    assert [(result.task, result.seeds) for result in merged.results] == [("squad_v2", [0]), ("sst2", [5])]
    online = {"name": "a", "sha256": "0", "license": "mit", "language": "en", "parameters": 5}
    Results(online, (SST2,)).write(tmp_path / "results.json")
    offline = {"name": "a", "sha256": "0", "parameters": 5}
    merged = Results.open(tmp_path, offline).updated([SQUAD])
    assert merged.results == (SST2, SQUAD)
    assert merged.model == online  # what is known online only is not lost
    for other in ({**offline, "name": "b"}, {**offline, "sha256": "1"}):
        with pytest.raises(ResultsError, match="Give another --output-dir"):
            Results.open(tmp_path, other)
    assert Results.open(tmp_path / "new", other) == Results(other)


def test_the_papers_average():
    def result(task, value, split="validation"):
        return replace(SST2, task=task, split=split, metrics={"m": [value]}, seeds=[0])

    six = [result("squad", 90.2), result("squad_v2", 80.4), result("mrpc", 0.878), result("sst2", 0.921)]
    six += [result("rte", 0.714), result("mnli", 0.841, "validation_matched")]
    # Its own row for BERT-base.
    both = Results({}, (*six, result("mnli", 0.0, "validation_mismatched")))
    assert both.average == pytest.approx(84.3, abs=0.05)
    assert Results({}, tuple(six[:5])).average is None


def test_page_metadata_and_yaml(folder, results, record):
    added = add_results(folder, [results(SST2, SQUAD, MLM)])
    assert [(line.task, line.shown) for line in added] == [
        ("sst2", ["accuracy"]),
        ("squad_v2", ["f1", "exact"]),
        ("mlm", ["loss"]),
    ]
    assert read_evaluations(folder) == added
    main(["card", str(folder), "--name", "org/small", "--no-latency"])
    page = (folder / "README.md").read_text()
    assert "| accuracy |  | **0.91** ± 0.01 | mean of seeds 0, 1, 2; 6,000 of 67,349 examples of sst2 train" in page
    assert "| f1 |  | **71.25** |" in page
    assert "| my.txt mlm | held out | loss |  | **3.5** |" in page
    assert "It has not been evaluated on any task" not in page
    names = {(one.dataset_type, one.metric_type): one.metric_value for one in ModelCard(page).data.eval_results}
    assert names == {
        ("nyu-mll/glue", "accuracy"): pytest.approx(0.91),
        ("rajpurkar/squad_v2", "f1"): 71.25,
        ("rajpurkar/squad_v2", "exact"): 68.5,
    }
    files = {path.name: yaml.safe_load(path.read_text()) for path in (folder / ".eval_results").iterdir()}
    assert set(files) == {"nyu-mll-glue.yaml", "rajpurkar-squad-v2.yaml"}
    (entry,) = files["nyu-mll-glue.yaml"]
    assert entry["dataset"] == {"id": "nyu-mll/glue", "task_id": "sst2"}
    assert entry["value"] == pytest.approx(0.91)
    assert "not comparable" in entry["notes"]
    assert "standard deviation 0.01" in entry["notes"]


def test_the_command_with_a_base_beside(folder, results, tmp_path):
    dense = write(
        tmp_path / "dense.json",
        replace(SST2, metrics={"accuracy": [0.95]}, seeds=[0]),
        sha256="other",
    )
    command = ["card", str(folder), "--no-latency", "--results", str(results(SST2)), "--base-results", str(dense)]
    main(command)
    assert "| accuracy | 0.95 | **0.91** ± 0.01 |" in (folder / "README.md").read_text()
    main(command)  # replaced, not added once more
    assert len(read_evaluations(folder)) == 1
    main([*command[:3], "--results", str(results(SST2, SQUAD))])
    assert [line.base for line in read_evaluations(folder)] == [{}, {}]


def test_results_of_a_fine_tuned_models_parent(folder, tmp_path):
    """`run_glue.py` names the checkpoint that it began with; the folder it leaves knows that one."""
    path = write(tmp_path / "results.json", SST2, sha256="of-the-parent")
    with pytest.raises(RecordError, match="whose weights are not the ones in `result`"):
        add_results(folder, [path])
    (folder / "finetuning.json").write_text(json.dumps({"settings": {"model": {"sha256": "of-the-parent"}}}))
    assert len(add_results(folder, [path])) == 1


@pytest.mark.parametrize("version_0_1", [False, True])
def test_the_page_of_a_model_that_was_only_fine_tuned(folder, version_0_1):
    (folder / "pruning.json").unlink()
    base = {"name": "org/small", "hub": True, "license": "mit", "language": "en"}
    record = {"settings": {"model": {"name": "org/small"}, "task": "sst2"}, "base_model": base}
    if version_0_1:
        record = {"settings": {"model": base, "task": "sst2"}}
    (folder / "finetuning.json").write_text(json.dumps(record))
    facts = Facts.of_folder(folder)
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    page = render_card(facts, "org/small-sst2")
    assert "[org/small](https://huggingface.co/org/small), fine-tuned on sst2: " in page
    data = ModelCard(page).data
    assert (data.base_model, data.license, data.language) == ("org/small", "mit", "en")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "These are no results"),
        ('{"format": 9}', "`format` is 9"),
        ('{"format": 1, "model": {}, "results": [{"task": "x"}]}', "These are no results"),
        (
            json.dumps({"format": 1, "model": {}, "results": [{**vars(SST2), "metrics": {"accuracy": [0.5]}}]}),
            "expected is one number for each of",
        ),
        (json.dumps({"format": 1, "model": {}, "results": [{**vars(SST2), "metrics": {}}]}), "has no metrics"),
    ],
)
def test_bad_results_change_nothing(folder, tmp_path, content, words):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ResultsError, match=words):
        Results.read(tmp_path / "bad.json")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(SystemExit, match=words):
        main(["card", str(folder), "--no-latency", "--results", str(tmp_path / "bad.json")])
    assert {path.name for path in folder.iterdir()} == before


def test_what_cannot_be_compared_is_refused(folder, results, tmp_path):
    dense = write(tmp_path / "dense.json", replace(SST2, examples=100))
    with pytest.raises(RecordError, match="on 872 examples, with the base on 100"):
        add_results(folder, [results(SST2)], [dense])
    assert not (folder / "evaluation.json").exists()
    with pytest.raises(SystemExit, match="Give both"):
        main(["card", "nowhere", "--base-results", "x"])


def test_files_of_version_0_1_are_read(folder, tmp_path, record):
    """As 0.1 wrote them: `evaluation.json` an item per number, `results.json` with every key."""
    (tmp_path / "results.json").write_text(OLD_RESULTS)
    read = Results.read(tmp_path)
    assert read.results == (replace(SST2, run={"date": "2026-01-02", "data": "the Hub"}), MLM)
    (folder / "evaluation.json").write_text(OLD_EVALUATION)
    f1, accuracy, loss = read_evaluations(folder)
    assert (f1.mean(), f1.base, f1.std(), f1.split, f1.hub) == (0.9, {"f1": 0.95}, 0.01, "validation", True)
    assert (accuracy.mean(), accuracy.base, accuracy.std(), accuracy.split) == (0.8, {}, None, None)
    assert not loss.hub
    page = render_card(Record.of_folder(folder), "org/small")
    row = "(https://huggingface.co/datasets/nyu-mll/glue) mrpc | validation | f1 | 0.95 | **0.9** ± 0.01 | 3 seeds |"
    assert row in page
    assert "| my.txt mlm |  | loss |  | **3.5** |  |" in page
    (entry, _) = yaml.safe_load(eval_result_files((f1, accuracy))[".eval_results/nyu-mll-glue.yaml"])
    assert entry == {
        "dataset": {"id": "nyu-mll/glue", "task_id": "mrpc", "revision": "abc"},
        "value": 0.9,
        "date": "2026-01-02",
        "notes": "f1, validation, standard deviation 0.01, 3 seeds",
    }
    # A new result of the same data set, split and metric replaces one number of them.
    mrpc = replace(SST2, task="mrpc", config="mrpc", metrics={"f1": [0.5, 0.5, 0.5]})
    new = write(tmp_path / "new.json", mrpc, sha256=sha256(folder / "model.safetensors"))
    assert add_results(folder, [new]) == (accuracy, loss, mrpc) == read_evaluations(folder)


@pytest.mark.parametrize(
    ("terms", "unit", "headings"),
    [
        (
            {"classification": 0.5, "loss": 0.5, "classification_accuracy": 0.875},
            "nats",
            ["label loss", "labels right"],
        ),
        ({"regression": 0.5, "loss": 0.5}, "squared points", ["score loss"]),
        (
            {"start": 0.5, "end": 0.25, "loss": 0.75, "start_accuracy": 0.5, "end_accuracy": 0.5},
            "nats",
            ["answer's start loss", "answer's end loss", "starts right", "ends right"],
        ),
    ],
)
def test_pages_of_models_that_were_pruned_on_a_task(record, terms, unit, headings):
    facts = copy.deepcopy(record)
    facts["config"]["architectures"] = ["SchuBertForSequenceClassification"]
    for one in facts["run"]["rounds"]:
        one.update(dict.fromkeys(("before", "after_cut", "after_recovery"), terms))
    facts["run"]["provenance"].pop("mlm_probability", None)
    page = render_card(Facts.from_json(facts), "org/small")
    assert f"held-out examples, in {unit}; smaller is better" in page
    assert f"| round | parameters | kept | {' | '.join(headings)} |" in page
    assert "masked words" not in page
    assert "are masked" not in page
