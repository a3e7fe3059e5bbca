"""Progressive stacking: a deep BERT that begins as a trained shallow one, repeated.

Gong et al., *Efficient Training of BERT by Progressively Stacking*, ICML 2019: neighbouring layers attend in similar
patterns, so copies of trained layers are a better start than random ones, and the first steps are cheap.
"""

from __future__ import annotations

import copy
import re

from transformers import PreTrainedModel

from ..configuration_schubert import LAYER_LISTS

LAYER = re.compile(r"(.*encoder\.layer\.)(\d+)(\..*)")


def stack_layers(model: PreTrainedModel, times: int) -> PreTrainedModel:
    """A model of `times` the depth: layer i of the result is a copy of layer i mod l of `model`.

    Args:
        model: a SchuBERT of any class; it is not touched.
        times: at least 1; 1 gives a copy.

    Returns:
        A new model of the same class, everything but the layers as it was.
    """
    if times < 1:
        raise ValueError(f"`times` is {times}; give how often the layers are repeated, at least 1.")
    config = copy.deepcopy(model.config)
    depth = config.num_hidden_layers
    lists = {name: getattr(config, name) * times for name in LAYER_LISTS}
    shape = type(config).from_dict({**config.to_dict(), "num_hidden_layers": None, **lists})
    deeper = type(model)(shape).to(dtype=model.dtype)
    state = {}
    for name, tensor in model.state_dict().items():
        match = LAYER.fullmatch(name)
        for repeat in range(times if match else 1):
            target = f"{match[1]}{int(match[2]) + repeat * depth}{match[3]}" if match else name
            state[target] = tensor
    deeper.load_state_dict(state)
    deeper.tie_weights()
    return deeper.to(model.device).train(model.training)
