"""Progressive stacking: a deep BERT that begins as a trained shallow one, repeated.

Gong et al., *Efficient Training of BERT by Progressively Stacking*, ICML 2019: neighbouring layers attend in similar
patterns, so copies of trained layers are a better start than random ones, and the first steps are cheap.
"""

from __future__ import annotations

import copy

from transformers import PreTrainedModel

from ..anatomy import move_layer, place_of_tensor, rebuild
from ..configuration_schubert import LAYER_LISTS


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
    deeper = rebuild(model, shape).to(model.dtype)
    state = {}
    for name, tensor in model.state_dict().items():
        layer = place_of_tensor(name).layer
        for repeat in range(1 if layer is None else times):
            state[name if layer is None else move_layer(name, layer + repeat * depth)] = tensor
    deeper.load_state_dict(state)
    deeper.tie_weights()
    return deeper.to(model.device).train(model.training)
