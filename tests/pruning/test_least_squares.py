"""Corrections against solutions that are written down, and the ridge against trying every one on the fold."""

import pytest
import torch

from schubert_hf.pruning.least_squares import RIDGE, RIDGES, NormRegression, Regression

WIDTH, OUTPUTS = 7, (3, 5)


def problem(tokens, noise, seed=0):
    """Correlated inputs that are not centred, and what two maps lack there."""
    torch.manual_seed(seed)
    x = torch.randn(tokens, WIDTH, dtype=torch.float64) @ torch.randn(WIDTH, WIDTH, dtype=torch.float64) + 3
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(sum(OUTPUTS), WIDTH, generator=generator, dtype=torch.float64)
    return x, x @ weight.mT + 1.5 + noise * torch.randn(tokens, sum(OUTPUTS), dtype=torch.float64)


def regression(fitted, fold=None, reduce=None):
    found = Regression(WIDTH, OUTPUTS, reduce)
    for start in range(0, len(fitted[0]), 9):  # in batches
        found.add(fitted[0][start : start + 9], fitted[1][start : start + 9], fold=False)
    if fold is not None:
        found.add(*fold, fold=True)
    return found


def by_hand(x, lack, ridge):
    """Centred normal equations."""
    centred, wanted = x - x.mean(0), lack - lack.mean(0)
    gram = centred.mT @ centred / len(x)
    weight = torch.linalg.solve(gram + torch.diag(ridge * gram.diagonal()), centred.mT @ wanted / len(x)).mT
    return weight, lack.mean(0) - weight @ x.mean(0)


@pytest.mark.parametrize("ridge", [None, 1e-3, 1.0])
def test_without_a_fold_it_is_the_ridge_regression_of_the_given_ridge(ridge):
    x, lack = problem(40, 0.3)
    weight, bias = by_hand(x, lack, RIDGE if ridge is None else ridge)
    found = regression((x, lack)).solve(ridge)
    torch.testing.assert_close(torch.cat([one.weight for one in found]), weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([one.bias for one in found]), bias, rtol=1e-4, atol=1e-4)


def test_the_fold_chooses_each_maps_ridge_and_then_all_tokens_count():
    """One map lacks what the inputs say, the other noise alone: they want other ridges."""
    x, lack = problem(12, 0.01)
    fold_x, fold_lack = problem(200, 0.01, seed=1)
    torch.manual_seed(2)
    for some in (lack, fold_lack):
        some[:, 3:] = torch.randn(len(some), 5, dtype=torch.float64)
    found = regression((x, lack), (fold_x, fold_lack)).solve()
    for part, correction in zip((slice(0, 3), slice(3, 8)), found, strict=True):
        errors = {}
        for ridge in RIDGES:
            weight, bias = by_hand(x, lack[:, part], ridge)
            errors[ridge] = float((fold_lack[:, part] - fold_x @ weight.mT - bias).square().sum())
        assert correction.ridge == min(errors, key=errors.__getitem__)
        weight, bias = by_hand(torch.cat([x, fold_x]), torch.cat([lack, fold_lack])[:, part], correction.ridge)
        torch.testing.assert_close(correction.weight, weight, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(correction.bias, bias, rtol=1e-4, atol=1e-4)
    assert found[0].ridge < found[1].ridge


def test_two_halves_that_are_summed_are_one_whole():
    fitted, fold = problem(36, 0.5), problem(18, 0.5, seed=1)
    whole = regression(fitted, fold).solve()
    halves = [regression([t[n::2] for t in fitted], [t[n::2] for t in fold]) for n in (0, 1)]
    other = {id(halves[0].fitted): halves[1].fitted, id(halves[0].fold): halves[1].fold}
    halves[0].reduce = lambda tensor: tensor + other[id(tensor)]
    for one, same in zip(halves[0].solve(), whole, strict=True):
        assert one.ridge == same.ridge
        torch.testing.assert_close(one.weight, same.weight)


def test_a_constant_input_keeps_its_weight():
    x, lack = problem(40, 0.3)
    x[:, 2] = 5.0
    assert float(regression((x, lack)).solve()[0].weight[:, 2].abs().max()) < 1e-6


def test_a_norm_finds_the_scale_and_shift_of_its_targets():
    torch.manual_seed(0)
    x = torch.randn(400, 6, dtype=torch.float64)
    norm, wanted = torch.nn.LayerNorm(6).double(), torch.nn.LayerNorm(6).double()
    with torch.no_grad():
        wanted.weight.uniform_(0.5, 2)
        wanted.bias.normal_()
        found = NormRegression(norm)
        found.add(x, wanted(x))
        found.apply()
    torch.testing.assert_close(norm.bias, wanted.bias, atol=2e-2, rtol=0)
    torch.testing.assert_close(norm.weight, wanted.weight, rtol=2e-2, atol=0)
