"""Parameters and FLOPs of any legal shape: what the formulas say is what a model has and what PyTorch counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from schubert_hf import SchuBertConfig, SchuBertConfigError, SchuBertModel
from schubert_hf.auto import MODELS


@st.composite
def configs(draw: st.DrawFn) -> SchuBertConfig:
    """Any legal shape: sublayers may be empty, hidden sizes may grow and shrink."""
    layers = draw(st.integers(1, 4))
    least = {"hidden_sizes": 1, "filter_sizes": 0, "head_counts": 0, "key_query_sizes": 1, "value_sizes": 1}
    widths = {
        name: draw(st.lists(st.integers(low, 9), min_size=layers, max_size=layers)) for name, low in least.items()
    }
    return SchuBertConfig(
        **widths,
        vocab_size=draw(st.integers(1, 20)),
        max_position_embeddings=draw(st.integers(4, 20)),
        type_vocab_size=draw(st.integers(1, 3)),
        num_labels=draw(st.integers(1, 5)),
        tie_word_embeddings=draw(st.booleans()),
    )


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())


@settings(max_examples=40, deadline=None)
@given(configs(), st.sampled_from(list(MODELS.values())))
def test_parameters_equal_the_count(config, model_class):
    with torch.device("meta"):
        model = model_class(config)
    name = model_class.__name__
    assert config.num_parameters(name) == count(model) == model.num_parameters()
    parts = config.parameter_breakdown(name)
    base = model if model_class is SchuBertModel else model.bert
    assert parts["embeddings"] == count(base.embeddings)
    assert parts["pooler"] == (count(base.pooler) if base.pooler is not None else 0)
    for i, layer in enumerate(base.encoder.layer):
        assert parts[f"encoder.layer.{i}.attention"] == count(layer.attention)
        assert parts[f"encoder.layer.{i}.filters"] == count(layer.intermediate) + count(layer.output)


def test_parameters_without_pooler(ragged):
    config = ragged()
    without = SchuBertModel(config, add_pooling_layer=False)
    assert config.num_parameters(add_pooling_layer=False) == count(without)


def test_parameters_of_an_unknown_class(ragged):
    with pytest.raises(SchuBertConfigError, match="'BertModel', allowed is SchuBertModel"):
        ragged().num_parameters("BertModel")


@settings(max_examples=20, deadline=None)
@given(configs(), st.integers(1, 4), st.integers(1, 3))
def test_flops_equal_the_counter(config, seq_len, batch_size):
    config._attn_implementation = "eager"
    model = SchuBertModel(config).eval()
    ids = torch.zeros(batch_size, seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert config.flops(seq_len, batch_size) == counter.get_total_flops()
