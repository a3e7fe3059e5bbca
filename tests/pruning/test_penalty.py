"""What gamma and beta do: their gradient, and the price that they set under Adam."""

import pytest
import torch
from oracles import build_gates, ragged

from schubert_hf.pruning.config import PruningConfig
from schubert_hf.pruning.gates import Gates
from schubert_hf.pruning.units import Group

FILTERS, HEADS = Group("f", 0), Group("a", 0)


def beta_of(gates, **by_letter):
    return {group: by_letter.get(group.dimension, 0.0) for group in gates.groups}


def test_its_gradient_is_beta_by_the_sum_of_all_beta():
    gates = build_gates(ragged(), "fa")
    beta = {group: 1.0 + number for number, group in enumerate(gates.groups)}
    total = sum(beta[group] * units for group, units in gates.groups.items())
    gates.penalty(beta).backward()
    for group in gates.groups:
        torch.testing.assert_close(gates[group].grad, beta[group] / total * gates[group].detach().sign())


@pytest.mark.parametrize(("dear", "cheap"), [("f", "a"), ("a", "f")])
def test_beta_is_a_price_and_no_speed(dear, cheap):
    """Both kinds save the loss as much: the dear one falls and the cheap one stays, whichever has the larger beta."""
    gates = Gates(ragged(), "fa").double()
    beta = beta_of(gates, **{dear: 3.0, cheap: 1.0})
    gamma, total = 10.0, sum(beta[group] * units for group, units in gates.groups.items())
    worth = 2.0 * gamma / total  # what the loss falls by per unit of alpha: between the two prices
    loop = PruningConfig().alpha_loop()
    optimizer = torch.optim.AdamW(gates.parameters(), lr=loop.learning_rate, weight_decay=loop.weight_decay)
    for _ in range(20):
        loss = -worth * sum(gates[group].sum() for group in gates.groups) + gamma * gates.penalty(beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for group, alphas in gates.values().items():
        assert bool((alphas < 1).all()) == (group.dimension == dear), group
        # The speed is the learning rate's, whatever the price.
        torch.testing.assert_close(
            (alphas - 1).abs(), torch.full_like(alphas, 20 * loop.learning_rate), rtol=0.01, atol=0
        )
