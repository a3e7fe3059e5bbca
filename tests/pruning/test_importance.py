import torch

from schubert_hf.pruning.importance import alpha_importance
from schubert_hf.pruning.units import Group


def test_a_large_negative_alpha_matters():
    alphas = {Group("f", 0): torch.tensor([0.5, -2.0, 0.0]), Group("h", None): torch.tensor([-0.1])}
    scores = alpha_importance(alphas)
    assert scores[Group("f", 0)].tolist() == [0.5, 2.0, 0.0]
    assert list(scores) == list(alphas)
    assert alphas[Group("f", 0)].tolist() == [0.5, -2.0, 0.0]
