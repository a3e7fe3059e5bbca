import json
from dataclasses import asdict, replace

import pytest

from schubert_hf import PruningConfig
from schubert_hf.pruning.config import PruningConfigError


@pytest.mark.parametrize(
    ("given", "multiples"),
    [
        (8, {"h": 8, "f": 8, "k": 8, "v": 8, "e": 8}),
        (1, {"h": 1, "f": 1, "k": 1, "v": 1, "e": 1}),
        ("16", {"h": 16, "f": 16, "k": 16, "v": 16, "e": 16}),
        ("h=16,k=4", {"h": 16, "k": 4}),
        (" h=16 , f = 32 ", {"h": 16, "f": 32}),
        ({"v": 2}, {"v": 2}),
        ({}, {}),
    ],
)
def test_multiples(given, multiples):
    assert PruningConfig(multiple_of=given).multiples == multiples


@pytest.mark.parametrize("given", [0, -8, 8.0, True, None, "", "h", "h=0", "x=8", "h=8;f=8", {"h": 1.5}, {"x": 1}])
def test_other_multiples_are_refused(given):
    with pytest.raises(PruningConfigError, match=r"`multiple_of` is .*; give a whole number like 8"):
        PruningConfig(multiple_of=given)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rounds", 0, "a whole number of at least 1"),
        ("rounds", None, "a whole number of at least 1"),
        ("rounds", 2.0, "a whole number of at least 1"),
        ("rounds", True, "a whole number of at least 1"),
        ("alpha_steps", 0, "a whole number of at least 1"),
        ("recovery_steps", -1, "a whole number of at least 0"),
        ("gamma", -0.5, "a number of at least 0"),
        ("gamma", float("nan"), "a number of at least 0"),
        ("recovery_learning_rate", float("inf"), "a number of at least 0"),
        ("alpha_learning_rate", "0.1", "a number of at least 0"),
        ("micro_batch_size", 0, "a whole number of at least 1"),
        ("seed", -1, "a whole number of at least 0"),
    ],
)
def test_values_out_of_range_are_refused(name, value, allowed):
    with pytest.raises(PruningConfigError, match=f"`{name}` is .*; allowed is {allowed}"):
        PruningConfig(**{name: value})


@pytest.mark.parametrize("dimensions", ["", "hx", "hh", 5])
def test_other_dimensions_are_refused(dimensions):
    with pytest.raises(PruningConfigError):
        PruningConfig(dimensions=dimensions)


def test_loops():
    config = PruningConfig(dimensions="vfh", recovery_steps=3, recovery_warmup_steps=5, micro_batch_size=4, seed=7)
    assert config.resolve().dimensions == "hfv"
    alphas, recovery = config.alpha_loop(), config.recovery_loop(2e-4)
    assert (alphas.schedule, alphas.weight_decay, alphas.max_grad_norm) == ("constant", 0, 0)
    assert (recovery.steps, recovery.warmup_steps, recovery.learning_rate) == (3, 3, 2e-4)
    assert alphas.micro_batch_size == recovery.micro_batch_size == 4
    assert alphas.seed == recovery.seed == 7


def test_settings_are_json():
    settings = json.loads(json.dumps(asdict(PruningConfig(multiple_of="h=16"))))
    assert PruningConfig(**settings).resolve() == PruningConfig(multiple_of={"h": 16}).resolve()


def test_fields_stay_as_given_and_defaults_follow_the_other_settings():
    config = PruningConfig(multiple_of="h=16", dimensions="fh")
    assert (config.teacher_weight, config.recovery_learning_rate) == (None, None)
    assert (config.multiple_of, config.dimensions) == ("h=16", "fh")
    assert config.resolve().teacher_weight == 1
    assert replace(config, method="schubert").resolve().teacher_weight == 0
    layers = PruningConfig(method="layers")
    assert (layers.dimensions, layers.resolve().dimensions) == ("auto", "l")
    assert replace(layers, method="auto").resolve().dimensions == "auto"  # a model has a say in them
    assert replace(config, teacher_weight=0.5).resolve().teacher_weight == 0.5
    assert config.resolve().resolve() == config.resolve()


def test_the_recovery_learning_rate_stays_open_until_it_is_measured():
    assert PruningConfig().resolve().recovery_learning_rate is None
    assert PruningConfig(recovery_learning_rate=0.1).resolve().recovery_learning_rate == 0.1
    loop = PruningConfig(recovery_steps=3).recovery_loop(2e-4)
    assert (loop.learning_rate, loop.steps, loop.warmup_steps) == (2e-4, 3, 3)
