import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import parameter_cost

from schubert_hf import SchuBertConfig
from schubert_hf.auto import MODELS
from schubert_hf.cost import BudgetError, format_size, parse_target, penalty_weights, unit_cost
from schubert_hf.pruning.units import find_groups
from schubert_hf.shape import Shape


@pytest.mark.parametrize("architecture", [model.__name__ for model in MODELS.values()])
def test_beta_of_bert_base(architecture):
    """Khetan & Karnin 2020: beta_a = 1.0, beta_h = 0.73, beta_k = beta_v = 0.093, beta_f = 0.0078."""
    config = SchuBertConfig()
    beta = penalty_weights(parameter_cost(config, architecture), Shape.of(config), find_groups(config, "hfakv"))
    paper = {"a": 1.0, "h": 0.73, "k": 0.0938, "v": 0.0938, "f": 0.0078}
    assert len(beta) == 1 + 4 * 12
    for (dimension, layer), weight in beta.items():
        assert weight == pytest.approx(paper[dimension], rel=0.02), (dimension, layer)


def test_beta_without_a_head_keeps_the_proportions(ragged):
    config = ragged(head_counts=[0, 0, 0])
    cost, shape = parameter_cost(config, "SchuBertForMaskedLM"), Shape.of(config)
    beta = penalty_weights(cost, shape, find_groups(config, "hf"))
    assert max(beta.values()) == beta["h", None] == 1
    assert beta["f", 0] == pytest.approx(unit_cost(cost, shape, "f", 0) / unit_cost(cost, shape, "h", None))


def test_beta_where_heads_or_all_units_cost_nothing(ragged):
    shape, groups = Shape.of(ragged()), find_groups(ragged(), "hfa")
    filters_alone = penalty_weights(lambda shape: 3.0 * sum(shape.filter_sizes), shape, groups)
    assert {weight for group, weight in filters_alone.items() if group.dimension == "f"} == {1.0}
    assert {weight for group, weight in filters_alone.items() if group.dimension != "f"} == {0.0}
    assert set(penalty_weights(lambda shape: 5.0, shape, groups).values()) == {0.0}


def test_cost_is_the_models_own_size_and_leaves_the_config_alone(ragged):
    config = ragged()
    for model_class in MODELS.values():
        for one in (config, ragged(embedding_size=19), ragged(embedding_size=19, tie_word_embeddings=False)):
            number = model_class(one).num_parameters()
            assert parameter_cost(one, model_class.__name__)(Shape.of(one)) == number
            assert one.num_parameters(model_class.__name__) == number
    cost = parameter_cost(config, "SchuBertModel")
    assert cost(Shape.of(config).shrink("h", None, 3)) < cost(Shape.of(config))
    assert config.hidden_sizes == [37, 31, 43]


def test_shrink(ragged):
    shape = Shape.of(ragged())
    assert shape.shrink("h", None, 2).hidden_sizes == (35, 29, 41)
    assert shape.shrink("k", 1, 3).key_query_sizes == (5, 4, 3)
    assert SchuBertConfig(**shape.shrink("f", 0, 41).lists()).filter_sizes == [0, 29, 53]


@pytest.mark.parametrize(
    ("target", "budget"),
    [
        ("66M", 66e6),
        ("66m", 66e6),
        (" 66 M ", 66e6),
        ("66.5M", 66.5e6),
        ("0.05B", 50e6),
        ("5K", 5000),
        ("5_000_000", 5e6),
        (5_000_000, 5e6),
        (66e6, 66e6),
        (0.6, 60e6),
        ("0.6", 60e6),
        (".6", 60e6),
        ("60%", 60e6),
        ("60 %", 60e6),
        ("0.5%", 0.5e6),
    ],
)
def test_targets(target, budget):
    assert parse_target(target, 100e6) == pytest.approx(budget)


@pytest.mark.parametrize(
    "target", ["", "M", "66MB", "12s", "-5M", "5MMS", "-0.5", "half", "6,5M", "1e6", "nan", "inf", True, None]
)
def test_what_is_no_size_is_refused(target):
    with pytest.raises(BudgetError, match=r'give a size like "66M" or a fraction'):
        parse_target(target, 100e6)


@pytest.mark.parametrize("target", [0, "0M", 1, 1.0, "100%", "100M", "2B", 100_000_000, "150%"])
def test_a_target_is_below_the_models_size(target):
    with pytest.raises(BudgetError, match=r"more than 0 and less than the model's own 100.00M"):
        parse_target(target, 100e6)


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (999, "999"), (1234, "1.23K"), (1_234_567, "1.23M"), (2e9, "2.00B")]
)
def test_sizes_for_people(number, text):
    assert format_size(number) == text


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 10**10))
def test_every_exact_size_is_understood(size):
    assert parse_target(f"{size + 1:_}", size + 2) == size + 1
