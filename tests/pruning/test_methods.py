"""Every method keeps the promises of the pruner, and does what its name says."""

from dataclasses import fields

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from schubert_hf import PruningConfig, SchuBertConfig, SchuBertForPreTraining
from schubert_hf.cost import BudgetError, FlopCost
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.pruning.methods import METHODS, describe_method
from schubert_hf.shape import Shape


def deep(**fields):
    """Five layers, all alike."""
    shape = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 40}
    torch.manual_seed(4)
    config = SchuBertConfig(
        **{**shape, "vocab_size": 99, "max_position_embeddings": 23, **fields},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return SchuBertForPreTraining(config)


def count_flops(model, seq_len):
    ids = torch.arange(seq_len)[None] % 99
    model.set_attn_implementation("eager")  # the counter has no formula for the CPU's fused kernel
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.base_model.eval()(input_ids=ids)
    return counter.get_total_flops()


def test_help_and_pages_come_from_one_table():
    (option,) = (field for field in fields(PruningConfig) if field.name == "method")
    for name, method in METHODS.items():
        assert f"{name}: {method.help}" in option.metadata["help"]
        assert describe_method({"method": name}) == method.page


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_budget(make_pruner, method):
    options = {"target": "70%", "dimensions": "auto", "multiple_of": 2, "recovery_steps": 1}
    runs = [make_pruner(deep(), method=method, calibration_examples=24, **options) for _ in range(2)]
    first, second = (run.prune() for run in runs)
    assert first.model.num_parameters() == first.size <= 0.7 * first.source_size
    assert first.plans == second.plans
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))
    # Per round: what it looks at, what the recovery measures with, then a step of it.
    measured = runs[0].recovery.measurement
    seen = {"schubert": 2 * 8, "auto": 24}.get(method, 0) + measured.fold + measured.gradient + 8
    assert runs[0].phases.position == 2 * seen
    assert bool(first.rounds[0].alphas) == (method == "schubert")


def test_uniform_shrinks_everything_by_the_same_factor(make_pruner):
    model = deep(hidden_size=60, intermediate_size=120, num_attention_heads=3)
    result = make_pruner(model, method="uniform", rounds=1, multiple_of=1, target="50%").prune()
    before, after = result.source, result.rounds[0].shape
    factors = [
        kept / size
        for name in ("hidden_sizes", "filter_sizes", "key_query_sizes", "value_sizes")
        for kept, size in zip(getattr(after, name), getattr(before, name), strict=True)
    ]
    assert max(factors) - min(factors) <= 1 / 20  # one unit of the narrowest, k = v = 20
    assert 0.4 < min(factors) < 0.9


def test_random_units_are_those_of_the_seed(make_pruner):
    plans = [make_pruner(deep(), method="random", rounds=1, seed=seed).prune().plans for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize(
    ("target", "kept"), [("85%", [0, 1, 3, 4]), ("70%", [0, 2, 4]), ("55%", [0, 4]), ("40%", [4])]
)
def test_fewer_layers_are_evenly_spaced_and_as_they_were(make_pruner, target, kept):
    model = deep()
    result = make_pruner(model, method="layers", rounds=1, target=target, recovery_steps=0).prune()
    assert list(result.plans[0].layers) == kept
    before, after = dict(model.named_parameters()), dict(result.model.named_parameters())
    for new, old in enumerate(kept):
        for name in (name for name in after if f"layer.{new}." in name):
            assert torch.equal(after[name], before[name.replace(f"layer.{new}.", f"layer.{old}.")])


def test_what_fewer_layers_cannot_reach_is_refused_at_once(make_pruner):
    with pytest.raises(BudgetError):
        make_pruner(deep(), method="layers", target="10%")


def test_flops_as_the_target_are_those_that_torch_counts(make_pruner):
    model = deep()
    options = {"cost": "flops", "cost_seq_len": 16, "multiple_of": 1, "recovery_steps": 0}
    result = make_pruner(model, target="55%", **options).prune()
    assert result.unit == "FLOPs"
    assert result.source_size == count_flops(model, 16)
    assert 0.5 * result.source_size < result.size <= 0.55 * result.source_size
    assert (
        result.size
        == count_flops(result.model, 16)
        == FlopCost(model.config, seq_len=16)(Shape.of(result.model.config))
    )
    named = make_pruner(model, target=f"{0.55 * result.source_size / 1e6:.4f} MFLOPs", cost_seq_len=16, multiple_of=1)
    assert named.budget.targets[-1] == pytest.approx(0.55 * result.source_size, rel=1e-3)


def test_flops_prefer_other_units_than_parameters(make_pruner):
    """Embeddings cost parameters and no work: with a large vocabulary the same share takes other widths."""
    options = {"target": "75%", "method": "uniform", "dimensions": "hf", "rounds": 1, "multiple_of": 1}
    by_parameters, by_flops = (
        make_pruner(deep(vocab_size=999), cost=cost, **options).prune().rounds[0].shape
        for cost in ("parameters", "flops")
    )
    assert by_parameters != by_flops


@pytest.mark.parametrize(("name", "value"), [("method", "best"), ("method", None), ("cost", "memory"), ("cost", "ms")])
def test_unknown_names_are_refused(name, value):
    with pytest.raises(PruningConfigError, match=f"`{name}` is {value!r}; allowed is "):
        PruningConfig(**{name: value})


def test_a_target_in_another_unit_is_refused(make_pruner):
    with pytest.raises(BudgetError, match=r"`target` is '5GFLOPs', but `cost` counts parameters"):
        make_pruner(deep(), target="5GFLOPs", cost="parameters")
