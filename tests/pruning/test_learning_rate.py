"""The rate that is found lies where the first step gains most, is drawn towards a typical one, and costs a fifth."""

import pytest
import torch

from schubert_hf.pruning import learning_rate as rates
from schubert_hf.pruning.learning_rate import FORWARD, MEASURED, Measurement, best_first_step, doubling_rate


@pytest.mark.parametrize("best", [1e-6, 6e-5, 1e-4, 7e-4, 1.0])
def test_the_lowest_loss_is_found_where_there_is_one_minimum(best):
    asked = []

    def loss_at(rate):
        asked.append(rate)
        return float((torch.tensor(rate).log() - torch.tensor(best).log()) ** 2)

    found, _ = best_first_step(loss_at, 4)
    expected = min(max(best, MEASURED[0]), MEASURED[-1])
    assert found == pytest.approx(expected, rel=0.1)
    assert len(asked) == len(set(asked)) <= 4


def test_the_measurement_is_drawn_towards_a_typical_rate():
    def found(loss_at):
        return rates.find_learning_rate(loss_at, 4, 1.0, 20)

    high, low = (found(lambda rate, best=best: 1 + abs(rate - best)) for best in (1.0, 0.0))
    assert 5e-4 < high < MEASURED[-1]
    assert MEASURED[0] < low < 5e-5
    middle = found(lambda rate: 1 + abs(rate - rates.TYPICAL) ** 0.5)
    assert middle == pytest.approx(rates.TYPICAL, rel=0.3)


def test_a_first_step_that_gains_much_is_trusted():
    def found(gain, best=7e-4):
        """The loss is lowest at `best`, by a share `gain` below that after the cut, which is 2."""
        return rates.find_learning_rate(
            lambda rate: 2 * (1 - gain) + (torch.tensor(rate / best).log().item() / 10) ** 2, 4, 2.0, 20
        )

    little, some, sure, much, more = map(found, (0.0, 0.01, rates.SURE, rates.MUCH, 0.5))
    assert 3e-4 < little < some < sure
    assert sure == pytest.approx((1 + (rates.FARTHER - 1) * rates.SURE / rates.MUCH) * 7e-4, rel=0.05)
    assert much == pytest.approx(rates.FARTHER * 7e-4, rel=0.05) == more
    assert found(0.5, best=3e-3) == rates.HIGHEST


@pytest.mark.parametrize("doubles", [3e-6, 3e-5, 1.8e-4, 8e-4])
@pytest.mark.parametrize("power", [1.5, 2.0, 2.2])
def test_where_the_dense_model_is_followed_the_first_step_doubles_the_loss(doubles, power):
    """Whatever the loss, its best first step, and roughly how it grows."""
    asked = []

    def loss_at(rate):
        asked.append(rate)
        share = rate / doubles
        return 0.04 * (1 + 1.2 * share**power - 0.2 * share)

    assert doubling_rate(loss_at, 4, 0.04) == pytest.approx(doubles, rel=0.1)
    assert len(asked) == 4
    few, many = (
        rates.find_learning_rate(loss_at, 4, 0.04, steps, power=0.5, follows_dense=True) for steps in (20, 9000)
    )
    assert few == pytest.approx(doubles, rel=0.1)
    assert many == pytest.approx(min(few * 5**0.5, rates.MOST))


@pytest.mark.parametrize(
    ("loss", "before", "expected"),
    [(1.0, 2.0, rates.MOST), (2.0, 2.0, rates.MOST), (float("inf"), 2.0, rates.LEAST), (0.0, 0.0, rates.LEAST)],
)
def test_a_first_step_that_never_doubles_the_loss_gives_the_ends(loss, before, expected):
    assert doubling_rate(lambda _: loss, 4, before) == expected


def test_longer_recoveries_have_higher_rates():
    """Unless the first step gains much: then it says how far each step may go."""

    def found(steps, gain, **how):
        return rates.find_learning_rate(lambda rate: 1 - gain + abs(rate - 1e-4), 4, 1.0, steps, **how)

    few, short, middle, long, longer = (found(steps, gain=0.0) for steps in (8, 60, 180, 300, 9000))
    assert few == short
    assert (middle, long, longer) == pytest.approx((3 * short, 5 * short, 5 * short))
    assert found(300, gain=0.0, power=0.0) == short
    assert found(300, gain=rates.MUCH / 2) == pytest.approx(5**0.5 * found(60, gain=rates.MUCH / 2), rel=1e-3)
    assert found(300, gain=rates.MUCH) == pytest.approx(found(60, gain=rates.MUCH), rel=1e-3)


@pytest.mark.parametrize("before", [0.0, float("inf"), float("nan")])
def test_a_loss_after_the_cut_that_says_nothing_leaves_the_trust_as_it_is(before):
    expected = rates.find_learning_rate(lambda rate: rate, 4, 1e-9, 20)
    assert rates.find_learning_rate(lambda rate: rate, 4, before, 20) == expected


def test_a_rate_that_diverges_is_no_error_but_the_worst():
    found, lowest = best_first_step(lambda rate: float("inf") if rate > 5e-5 else rate, 4)
    assert found == lowest == MEASURED[0]


@pytest.mark.parametrize("steps", [1, 7, 8, 20, 60, 300, 3000])
@pytest.mark.parametrize("batch_size", [1, 8, 32, 256])
def test_a_measurement_takes_at_most_a_fifth(steps, batch_size):
    measurement = Measurement.of(steps, batch_size)
    assert measurement.cost <= steps * batch_size / 5
    assert measurement.gradient % batch_size == 0
    assert bool(measurement.gradient) == bool(measurement.evaluations)
    if steps >= 10 and batch_size > 1:
        assert measurement.gradient
    # Together with its four evaluations in the recovery and one before, where that is not tiny.
    if steps * batch_size >= 320:
        assert 5 * measurement.fold * FORWARD <= 0.085 * steps * batch_size
