"""Metrics against cases computed by hand, and against their definitions written out."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def correlation(one, other):
    """Covariance by standard deviations, summed over the columns; inputs of shape (items, columns)."""
    one, other = one - one.mean(0), other - other.mean(0)
    scale = math.sqrt((one**2).sum() * (other**2).sum())
    return (one * other).sum() / scale if scale else 0.0


def ranks(values):
    """From 1; equal values share the mean of their ranks."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def one_hot(labels):
    return (labels[:, None] == np.arange(4)).astype(float)


DEFINITIONS = {
    "accuracy": lambda said, true: (said == true).mean(),
    "f1": lambda said, true: 2 * ((said == 1) & (true == 1)).sum() / max(1, (said == 1).sum() + (true == 1).sum()),
    "matthews_correlation": lambda said, true: correlation(one_hot(said), one_hot(true)),  # Gorodkin 2004
    "pearsonr": lambda said, true: correlation(said[:, None], true[:, None]),
    "spearmanr": lambda said, true: correlation(ranks(said)[:, None], ranks(true)[:, None]),
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", BY_HAND)
def test_equal_to_the_definitions(name, seed):
    """Few examples and few classes, so that one side is often constant or lacks class 1."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, [4, 300][seed % 2]))
    references = rng.integers(0, 1 + seed % 4, size)
    predictions = np.where(rng.random(size) < 0.6, references, rng.integers(0, 1 + seed % 4, size))
    if name not in LABELS:
        references = references + rng.choice([0.0, 0.5], size)  # with ties
        predictions = predictions + rng.normal(size=size)
    expected = DEFINITIONS[name](predictions, references)
    value = compute(name, predictions, references)
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-12)


def test_tiny_numbers_have_a_correlation():
    assert compute("pearsonr", [1e-200, 2e-200, 3e-200], [1.0, 2.0, 3.0]) == pytest.approx(1)


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


@pytest.mark.slow
def test_processes_do_not_get_into_each_others_way(tmp_path):
    """Six at one time, in a folder that stays as it was."""
    script = (
        "import multiprocessing\n"
        "from schubert_hf.evaluation.metrics import load_metric\n"
        "def compute():\n"
        "    for _ in range(20):\n"
        "        assert load_metric('f1').compute(predictions=[1, 0], references=[1, 1]) == {'f1': 2 / 3}\n"
        "processes = [multiprocessing.get_context('fork').Process(target=compute) for _ in range(6)]\n"
        "for process in processes: process.start()\n"
        "for process in processes: process.join()\n"
        "assert [process.exitcode for process in processes] == [0] * 6\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}  # read by what is imported
    (tmp_path / "here").mkdir()
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "here", env=environment, check=True)
    assert not list((tmp_path / "here").iterdir())
    assert not list(Path(tmp_path / "home").rglob("*.arrow"))
