"""Times are given by a function of the shape instead of the clock, so that nothing here depends on the machine."""

import itertools
import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schubert_hf import SchuBertConfig, SchuBertModel
from schubert_hf.latency.cost import LatencyCost, meet_budget
from schubert_hf.latency.table import Grid, LatencyTable, make_axes, make_monotone, measure_table
from schubert_hf.latency.timing import LatencyError, Workload, time_models
from schubert_hf.shape import DIMENSIONS, Shape, with_shape

SMALL = {"seq_len": 11, "device": "cpu"}


def linear(shape):
    """Milliseconds that the grid can hold exactly: linear in every width of a layer."""
    layers = zip(*shape.lists().values(), strict=True)
    return (
        5
        + 0.1 * shape.hidden_sizes[0]
        + sum(0.2 + h * (0.01 + 0.003 * f + a * (0.01 * k + 0.02 * v)) for h, f, a, k, v in layers)
    )


class Stopwatch:
    """A timer that counts how often it is asked. `load` makes everything slower, as a busy machine does."""

    def __init__(self, milliseconds=linear):
        self.milliseconds, self.load, self.asked = milliseconds, 1.0, []

    def __call__(self, shapes, rounds):
        self.asked.append(len(shapes))
        return [self.load * self.milliseconds(shape) for shape in shapes]


@pytest.fixture
def timed(ragged, tmp_path):
    """A cost of the ragged config; keyword arguments replace those of `LatencyCost`."""
    return lambda **arguments: LatencyCost(
        ragged(), **{**SMALL, "cache_dir": tmp_path, "timer": Stopwatch(), **arguments}
    )


def test_it_is_exact_where_the_time_is_linear(ragged, timed):
    cost, source = timed(), Shape.of(ragged())
    same = ragged(hidden_sizes=[30] * 3, filter_sizes=[17, 0, 53], head_counts=[1, 0, 2], key_query_sizes=[2, 1, 6])
    assert cost.unit == cost.table.unit == "ms"
    assert cost(source) == pytest.approx(linear(source))
    # Before the correction the table is exact, except that it takes embeddings and pooler to be as wide as the mean of
    # the first and the last layer; `linear` has the first only. No width is below the first point of its axis.
    first, last = source.hidden_sizes[0], source.hidden_sizes[-1]
    assert cost.table.ratio == pytest.approx(linear(source) / (linear(source) + 0.1 * (last - first) / 2))
    assert cost(Shape.of(same)) == pytest.approx(cost.table.ratio * linear(Shape.of(same)))
    with pytest.raises(LatencyError, match=r"`filter_sizes` holds 54.*53"):
        cost(Shape.of(ragged(filter_sizes=[54, 0, 0])))


def test_it_is_exact_at_the_points_of_the_grid(ragged):
    axes = make_axes(Shape.of(ragged()))

    def bent(shape):
        return sum(
            1 + h**0.7 + h * f**0.5 + h * a * (k * v) ** 0.6
            for h, f, a, k, v in zip(*shape.lists().values(), strict=True)
        )

    table = measure_table(Stopwatch(bent), axes, {})
    for h, f, a, k, v in itertools.product(*(axes[letter] for letter in "hfakv")):
        layers = Shape(*((width,) * 4 for width in (h, f, a, k, v)))
        assert table(layers) == pytest.approx(bent(layers))


def test_axes_of_bert_base():
    axes = make_axes(Shape.of(SchuBertConfig()))
    assert axes["h"] == [8, 192, 384, 576, 768]
    assert axes["f"] == [0, 8, 768, 1536, 2304, 3072]
    assert axes["a"] == [0, 1, 6, 12]
    assert axes["k"] == axes["v"] == [8, 32, 64]


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_removing_units_never_costs_more(seed):
    random = torch.Generator().manual_seed(seed)
    noise: dict[Shape, float] = {}
    source = Shape((40,) * 2, (50,) * 2, (3,) * 2, (24,) * 2, (9,) * 2)

    def noisy(shape):
        return noise.setdefault(shape, linear(shape) * float(0.5 + torch.rand((), generator=random)))

    table = measure_table(Stopwatch(noisy), make_axes(source), {})
    shape = Shape(
        *(
            tuple(int(torch.randint(least, most[0] + 1, (), generator=random)) for _ in range(2))
            for least, most in zip((1, 0, 0, 1, 1), source.lists().values(), strict=True)
        )
    )
    for dimension, name in DIMENSIONS.items():
        for layer in (None,) if dimension == "h" else (0, 1):
            smaller = shape.shrink(dimension, layer, 1)
            if min(getattr(smaller, name)) >= (0 if dimension in "fa" else 1):
                assert table(smaller) <= table(shape) * (1 + 1e-12)
    assert table(shape) >= 0


def test_make_monotone():
    assert make_monotone(torch.tensor([1.0, 2, 4])).tolist() == [1, 2, 4]
    assert make_monotone(torch.tensor([1.0, 3, 2, 4])).tolist() == [1, 2.5, 2.5, 4]
    assert make_monotone(torch.tensor([-1.0, 1])).tolist() == [0, 1]


def test_grid_between_and_beyond_its_points():
    grid = Grid(((2, 4), (1, 3, 5)), (0.0, 1, 2, 10, 11, 12))
    assert (grid(2, 3), grid(3, 4), grid(4, 5)) == (1, 6.5, 12)
    assert grid(1, 1) == grid(2, 1)
    assert Grid(((3,),), (7.0,))(1) == 7
    for values in ((1.0,), (0.0, 1, 2, 10, 11, float("nan"))):
        with pytest.raises(LatencyError, match="do not fit"):
            Grid(((2, 4), (1, 3, 5)), values)


def test_a_table_is_measured_once_and_kept(ragged, timed, tmp_path):
    first, again = Stopwatch(), Stopwatch()
    cost = timed(timer=first)
    assert [count > 2 for count in first.asked] == [True, False]
    assert timed(timer=again).table == cost.table
    assert again.asked == [1]
    (file,) = tmp_path.iterdir()
    assert LatencyTable.from_json(json.loads(file.read_text())) == cost.table
    timed(batch_size=2)
    timed(seq_len=12)
    timed(dtype=torch.bfloat16)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_cache_stands_where_the_environment_says(timed, tmp_path, monkeypatch):
    monkeypatch.setenv("SCHUBERT_CACHE", str(tmp_path / "elsewhere"))
    timed(cache_dir=None)
    assert len(list((tmp_path / "elsewhere" / "latency").iterdir())) == 1


@pytest.mark.parametrize("damage", ["torn", "foreign", "conditions", "list"])
def test_a_file_that_is_no_such_table_is_measured_anew(timed, tmp_path, damage):
    cost = timed()
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    other = {**cost.table.to_json(), "conditions": {**cost.table.conditions, "sequence_length": 12}}
    file.write_text({"torn": text[:99], "foreign": "{}", "conditions": json.dumps(other), "list": "[1]"}[damage])
    with pytest.warns(UserWarning, match="measured anew"):
        assert timed().table == cost.table
    assert file.read_text() == text


def test_a_cache_that_cannot_be_written_does_no_harm(timed, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"cannot be (kept|used)"):
        timed(cache_dir=tmp_path / "file")


def test_a_table_of_a_busy_machine_is_measured_anew_when_that_is_calm(ragged, timed):
    busy, calm = Stopwatch(), Stopwatch()
    busy.load = 3
    source = Shape.of(ragged())
    assert timed(timer=busy)(source) == pytest.approx(3 * linear(source))
    assert timed(timer=calm)(source) == pytest.approx(linear(source))
    assert max(calm.asked) > 2
    # The other way round the table is good: the machine is what is bad.
    busy.asked.clear()
    timed(timer=busy)
    assert busy.asked == [1]


def test_calibration_corrects_every_prediction_and_not_for_what_else_runs(ragged, timed):
    timer = Stopwatch()
    cost, source = timed(timer=timer), Shape.of(ragged())
    smaller, before = source.shrink("f", 0, 20), cost(source)
    timer.milliseconds = lambda shape: linear(shape) * (1 if shape == source else 1.1)
    timer.load = 3  # from now on
    assert cost.calibrate(smaller) == pytest.approx(1.1 * linear(smaller))
    assert cost(smaller) == pytest.approx(1.1 * linear(smaller))
    assert cost(source) == pytest.approx(1.1 * before, rel=0.02)
    timer.load = 0.5  # the machine was never so free before: that is its speed
    assert cost.calibrate(source) == pytest.approx(0.5 * before)


@dataclass(frozen=True)
class Plan:
    shape: Shape


def choose_filters(cost, source, step=1):
    """Takes filters from layer 2 until the budget is met."""

    def choose(budget):
        shapes = [source.shrink("f", 2, units) for units in range(0, 54, step)]
        return Plan(next(shape for shape in shapes if cost(shape) <= budget))

    return choose


def test_the_budget_is_met_in_timed_milliseconds(ragged, timed):
    timer = Stopwatch()
    cost, source = timed(timer=timer), Shape.of(ragged())
    full, least = linear(source), linear(source.shrink("f", 2, 53))
    budget = full - 0.3 * (full - least)
    # The prediction is 5 % too low for all that is smaller.
    timer.milliseconds = lambda shape: linear(shape) * (1 if shape == source else 1.05)
    plan, milliseconds = meet_budget(choose_filters(cost, source), budget, cost)
    assert timer.milliseconds(plan.shape) == pytest.approx(budget, rel=0.02)
    assert milliseconds == pytest.approx(timer.milliseconds(plan.shape))
    assert len(timer.asked) <= 2 + 4


def test_the_nearest_plan_is_taken_where_steps_are_coarse(ragged, timed):
    timer = Stopwatch()
    cost, source = timed(timer=timer), Shape.of(ragged())
    timer.asked.clear()
    budget = 0.5 * linear(source.shrink("f", 2, 20)) + 0.5 * linear(source.shrink("f", 2, 40))
    plan, milliseconds = meet_budget(choose_filters(cost, source, step=20), budget, cost, tolerance=0)
    assert plan.shape == source.shrink("f", 2, 40)
    assert timer.asked == [2]  # the same plan again would be no news
    assert milliseconds == pytest.approx(linear(plan.shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seq_len": 24}, "`seq_len` is 24, but the model has 23 positions"),
        ({"seq_len": 0}, "`seq_len` is 0"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"batch_size": True}, "`batch_size` is True"),
    ],
)
def test_what_cannot_be_timed(ragged, timed, arguments, message):
    with pytest.raises(LatencyError, match=message):
        timed(**arguments)
    with pytest.raises(LatencyError, match=message):
        time_models([ragged()], Workload(**{**SMALL, **arguments}))


@pytest.fixture
def one_thread():
    """Two that share busy cores wait for each other, ten times as long as they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_clock(ragged, tmp_path, monkeypatch):
    """The real one, on the real model: nothing is drawn from the caller's random numbers, and the config stays."""
    monkeypatch.setattr("schubert_hf.latency.table.POINTS", dict.fromkeys("hfakv", 2))
    config, state = ragged(head_counts=[3, 0, 1], filter_sizes=[41, 0, 53]), torch.get_rng_state()
    cost = LatencyCost(config, **SMALL, cache_dir=tmp_path)
    assert 0 < cost(Shape.of(config)) < 1000
    assert cost.calibrate(Shape.of(config).shrink("f", 0, 20)) > 0
    assert all(0 < time < 1000 for time in time_models([config], Workload(**SMALL))[0])
    assert min(time_models([config], Workload(**SMALL, dtype=torch.bfloat16))[0]) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert config == ragged(head_counts=[3, 0, 1], filter_sizes=[41, 0, 53])


@pytest.mark.usefixtures("one_thread")
def test_what_is_timed_is_the_model(ragged):
    """With all its weights, and fewer layers where the shape has fewer."""
    seen = []

    def watch(module, _, output):
        if isinstance(module, SchuBertModel):
            seen.append((module, output.pooler_output))

    config = with_shape(ragged(), Shape((7, 5), (3, 4), (1, 2), (3, 4), (5, 6)))
    with torch.nn.modules.module.register_module_forward_hook(watch):
        times = time_models([config, ragged()], Workload(2, 11, "cpu"), rounds=1)
    assert [len(values) for values in times] == [2, 2]
    small = next(model for model, _ in seen if model.config.num_hidden_layers == 2)
    assert small.num_parameters() == config.num_parameters() == SchuBertModel(config).num_parameters()
    assert not small.training
    assert all(output.shape[0] == 2 and bool(torch.isfinite(output).all()) for _, output in seen)
