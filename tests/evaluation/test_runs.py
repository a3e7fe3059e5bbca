"""One model on several tasks: what an output folder may hold before anything is trained."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from schubert_hf import SchuBertForSequenceClassification
from schubert_hf.evaluation.finetuning_config import FinetuningConfig
from schubert_hf.evaluation.results import Evaluation, Results, ResultsError
from schubert_hf.evaluation.runs import Runs

OFFLINE = {"name": "small", "hub": False, "sha256": "0"}
ONLINE = {**OFFLINE, "license": "mit", "language": "en"}


def result(task):
    return Evaluation(task=task, dataset="nyu-mll/glue", task_type="text-classification", metrics={"accuracy": [0.5]})


class MadeUp(Runs):
    """Results without an evaluation, and no training."""

    def evaluate(self, task):
        return [result(task.name)]

    def finetune(self, task, resume):
        pytest.fail("it was trained")


@pytest.fixture
def make(tmp_path, tmp_path_factory, ragged):
    """Runs of a model that is described so."""
    model = tmp_path_factory.mktemp("model")
    SchuBertForSequenceClassification(ragged(id2label={0: "a", 1: "b"})).save_pretrained(model)
    return lambda description: MadeUp(
        Accelerator(cpu=True), str(model), description, None, FinetuningConfig(), (0,), tmp_path, "command"
    )


def task(name):
    return SimpleNamespace(name=name, head="SequenceClassification", labels=("a", "b"), max_length=16, digest="0")


@pytest.mark.parametrize(("first", "second"), [(ONLINE, OFFLINE), (OFFLINE, ONLINE)])
def test_other_tasks_are_kept_whatever_was_looked_up_online(make, first, second, tmp_path):
    make(first).run([task("sst2")], evaluate_only=True)
    make(second).run([task("rte")], evaluate_only=True)
    read = Results.read(tmp_path)
    assert [one.task for one in read.results] == ["sst2", "rte"]
    assert read.model["license"] == "mit"


@pytest.mark.parametrize("change", [{"name": "other"}, {"sha256": "1"}])
def test_another_models_folder_is_refused_before_any_training(make, change, tmp_path):
    make(OFFLINE).run([task("sst2")], evaluate_only=True)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ResultsError, match="Give another --output-dir"):
        make({**OFFLINE, **change}).run([task("rte")])
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_fine_tuning_depends_on_name_and_weights_of_the_model(make):
    settings = make(OFFLINE).settings(task("sst2"), 0)
    assert make(ONLINE).settings(task("sst2"), 0) == settings
    assert settings["model"] == {"name": "small", "sha256": "0"}
    assert make({**OFFLINE, "sha256": "1"}).settings(task("sst2"), 0) != settings
    longer = replace(make(OFFLINE), config=FinetuningConfig(epochs=9))
    assert longer.settings(task("sst2"), 0) != settings
