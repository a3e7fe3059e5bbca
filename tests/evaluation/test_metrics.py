"""Metrics against scikit-learn and scipy where they are installed, and against cases computed by hand everywhere."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from schubert_hf.errors import MetricError
from schubert_hf.evaluation.metrics import load_metric

LABELS = ("accuracy", "f1", "matthews_correlation")
BY_HAND = {
    # 4 of 6 right; tp 2, fp 1, fn 1; (2 * 2 - 1 * 1) / 9
    "accuracy": ([1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0], 4 / 6),
    "f1": ([1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0], 4 / 6),
    "matthews_correlation": ([1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0], 3 / 9),
    # deviations -1 0 1 and -2 1 1: 3 / sqrt(2 * 6)
    "pearsonr": ([1.0, 2.0, 3.0], [1.0, 4.0, 4.0], 3 / math.sqrt(12)),
    # ranks 1 2.5 2.5 4 and 1 2 3 4: 4.5 / sqrt(4.5 * 5)
    "spearmanr": ([0.1, 7.0, 7.0, 90.0], [1.0, 2.0, 3.0, 4.0], 4.5 / math.sqrt(22.5)),
}


def compute(name, predictions, references):
    (value,) = load_metric(name).compute(predictions=predictions, references=references).values()
    return value


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    predictions, references, expected = BY_HAND[name]
    assert compute(name, predictions, references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_perfect_and_constant_predictions(name):
    references = [0, 1, 1, 0, 1]
    assert compute(name, references, references) == pytest.approx(1)
    constant = compute(name, [0] * 5, references)
    assert constant == (pytest.approx(0.4) if name == "accuracy" else 0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BY_HAND)
def test_equal_to_the_libraries(name, seed):
    rng = random.Random(seed)
    size = rng.randint(2, 300)
    classes = 2 if name == "f1" else rng.randint(2, 4)
    references = [rng.randrange(classes) for _ in range(size)]
    predictions = [label if rng.random() < 0.6 else rng.randrange(classes) for label in references]
    if name in LABELS:
        sklearn = pytest.importorskip("sklearn.metrics")
        definition = {
            "accuracy": sklearn.accuracy_score,
            "f1": lambda true, said: sklearn.f1_score(true, said, zero_division=0.0),
            "matthews_correlation": sklearn.matthews_corrcoef,
        }[name]
        expected = definition(references, predictions)
    else:
        stats = pytest.importorskip("scipy.stats")
        references = [label + rng.choice([0.0, 0.5]) for label in references]  # with ties
        predictions = [rng.gauss(label, 1) for label in references]
        expected = getattr(stats, name)(predictions, references).statistic
    assert compute(name, predictions, references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([], [], "at least one"),
        ([1, 0], [1], "2 predictions and 1 references"),
        ([0.5, 1], [1, 0], "whole numbers"),
        (["yes", "no"], [1, 0], "finite numbers"),
        ([[1], [0]], [1, 0], "shape"),
        ([float("nan"), 1], [1, 0], "finite"),
    ],
)
def test_bad_input(predictions, references, words):
    with pytest.raises(MetricError, match=words):
        load_metric("accuracy").compute(predictions=predictions, references=references)


def test_batches_are_collected():
    metric = load_metric("accuracy")
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    metric.add(prediction=1, reference=1)
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}
    with pytest.raises(MetricError, match="no predictions"):
        load_metric("accuracy").compute()


def test_unknown_names_tell_what_there_is():
    with pytest.raises(MetricError, match="matthews_correlation"):
        load_metric("no-such-metric-anywhere")


def test_a_metric_of_the_users_own(tmp_path):
    """`evaluate` takes a script, too."""
    folder = tmp_path / "always_seven"
    folder.mkdir()
    (folder / "always_seven.py").write_text(
        "import datasets\nimport evaluate\n"
        "class AlwaysSeven(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        value = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': value, 'references': value})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'seven': 7.0}\n"
    )
    assert load_metric(str(folder / "always_seven.py")).compute(predictions=[1], references=[0]) == {"seven": 7.0}


def test_processes_do_not_get_into_each_others_way(tmp_path):
    """Six at one time, in a folder that stays as it was."""
    script = (
        "from schubert_hf.evaluation.metrics import load_metric\n"
        "for _ in range(20):\n"
        "    assert load_metric('f1').compute(predictions=[1, 0], references=[1, 1]) == {'f1': 2 / 3}\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    (tmp_path / "here").mkdir()
    runs = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path / "here", env=environment) for _ in range(6)]
    assert [run.wait() for run in runs] == [0] * 6
    assert not list((tmp_path / "here").iterdir())
    assert not list(Path(tmp_path / "home").rglob("*.arrow"))
