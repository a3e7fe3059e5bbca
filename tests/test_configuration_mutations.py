"""Whatever a config.json holds, loading it gives a working model or one error that names the field."""

import math
import random
import warnings
from collections import Counter

import pytest
import torch

from schubert_hf import SchuBertConfig, SchuBertConfigError, SchuBertLoadError, SchuBertModel

MUTATIONS = 2000
WRONG = [
    *(None, True, False, "", "5", "gelu", "relu", "float32", "no such thing", [], {}, [None], ["a"], [4, 4], {"a": 1}),
    *({"0": "a", "1": "b"}, 0, 1, 3, -1, -(10**12), 10**12, 10**30, 0.0, 0.5, 1.5, -0.5, 1e-12, 1e300),
    *(math.nan, math.inf, -math.inf),
]
# Fields that published configs carry and that no SchuBERT reads.
EXTRA = {
    "use_cache": True,
    "gradient_checkpointing": False,
    "torch_dtype": "float32",
    "num_labels": 3,
    "pruned_heads": {},
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "auto_map": {"AutoModel": "modeling_schubert.SchuBertModel"},
    "output_past": True,
    "output_attentions": False,
    "layer_types": None,
    "rope_scaling": None,
    "position_embedding_type": "absolute",
}


def mutate(rng, fields):
    """Some fields replaced, removed or added; and the names of all of these."""
    fields, changed = dict(fields), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice([*fields, *EXTRA])
        kind = rng.random()
        if kind < 0.1:
            fields.pop(name, None)
        elif kind < 0.2:
            fields[name] = EXTRA.get(name, fields.get(name))
        elif kind < 0.4 and isinstance(fields.get(name), list) and fields[name]:
            changed_list = list(fields[name])
            changed_list[rng.randrange(len(changed_list))] = rng.choice(WRONG)
            fields[name] = changed_list
        else:
            fields[name] = rng.choice(WRONG)
        changed.append(name)
    return fields, changed


def run(config):
    """A forward pass; of a large model on the meta device, where only shapes are computed."""
    device = "cpu" if config.num_parameters() < 10**6 else "meta"
    with torch.device(device), torch.no_grad():
        model = SchuBertModel(config).eval()
        length = min(5, config.max_position_embeddings)
        output = model(torch.zeros(2, length, dtype=torch.long), return_dict=True)
    assert output.last_hidden_state.shape == (2, length, config.hidden_size)
    assert output.pooler_output.shape == (2, config.hidden_size)


def refusal(fields):
    """The message of the error, or None where there is a model that works."""
    try:
        run(SchuBertConfig.from_dict(fields))
    except (SchuBertConfigError, SchuBertLoadError) as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore")  # transformers warns of much that is accepted
def test_a_mutated_config_makes_a_model_or_one_clear_error(bert_config, ragged):
    rng = random.Random(0)
    valid = [
        bert_config(architectures=["BertForMaskedLM"], id2label={0: "a", 1: "b", 2: "c"}).to_dict(),
        ragged(architectures=["SchuBertForMaskedLM"]).to_dict(),
    ]
    outcomes: Counter[bool] = Counter()
    for number in range(MUTATIONS):
        fields, changed = mutate(rng, valid[number % 2])
        message = refusal(fields)
        outcomes[message is None] += 1
        if message is not None:
            assert any(f"`{name}" in message for name in named(changed)), (changed, message)
            assert "\n" not in message
    assert min(outcomes.values()) > MUTATIONS / 10, outcomes


def named(changed):
    """The fields that an error may name: a scalar and its list contradict each other, and one may blame either."""
    lists = {
        "hidden_size": ["hidden_sizes", "key_query_sizes", "value_sizes"],
        "num_attention_heads": ["head_counts", "key_query_sizes", "value_sizes"],
        "num_hidden_layers": ["hidden_sizes"],
        "intermediate_size": ["filter_sizes"],
        "hidden_sizes": ["hidden_size", "num_hidden_layers", "key_query_sizes", "value_sizes"],
        "head_counts": ["num_attention_heads", "num_hidden_layers", "key_query_sizes", "value_sizes"],
        "filter_sizes": ["intermediate_size", "num_hidden_layers"],
        "vocab_size": ["pad_token_id"],
        "torch_dtype": ["dtype"],
    }
    return [*changed, *(other for name in changed for other in lists.get(name, []))]


def test_nothing_is_refused_that_published_configs_carry(bert_config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = SchuBertConfig.from_dict({**bert_config().to_dict(), **EXTRA})
    assert config.num_labels == 3
    assert config.pooler_fc_size == 768
    run(config)
