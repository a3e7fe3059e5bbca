"""Fixtures, all built in code: tiny models of sizes all different and odd, so that a swapped axis cannot pass."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from schubert_hf import SchuBertConfig

torch.set_num_threads(2)
transformers.logging.disable_progress_bar()

RAGGED: dict[str, Any] = {
    "hidden_sizes": [37, 31, 43],
    "filter_sizes": [41, 29, 53],
    "head_counts": [3, 2, 1],
    "key_query_sizes": [5, 7, 3],
    "value_sizes": [9, 4, 13],
    "vocab_size": 99,
    "max_position_embeddings": 23,
    "type_vocab_size": 2,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ragged() -> Callable[..., SchuBertConfig]:
    """Build a config of three layers in which every width differs; keyword arguments replace fields."""
    return lambda **fields: SchuBertConfig(**{**RAGGED, **fields})


@pytest.fixture
def bert_config() -> Callable[..., transformers.BertConfig]:
    """Build a BertConfig of two layers; keyword arguments replace fields."""
    tiny = {
        "vocab_size": 99,
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "max_position_embeddings": 23,
    }
    return lambda **fields: transformers.BertConfig(**{**tiny, **fields})


@pytest.fixture
def randomised() -> Callable[[torch.nn.Module], Any]:
    """Give every parameter values that matter (fresh LayerNorms and biases are ones and zeros); in eval mode."""

    def randomise(model: torch.nn.Module) -> torch.nn.Module:
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, mean=1.0 if "LayerNorm.weight" in name else 0.0, std=0.3)
        return model.eval()

    return randomise


@pytest.fixture
def batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Inputs of 2 x 11 tokens (2 x 3 x 11 for multiple choice) for a class, with padding, segments and its labels."""

    def build(model_class: type, labels: bool = True) -> dict[str, torch.Tensor]:
        name = model_class.__name__
        shape = (2, 3, 11) if "MultipleChoice" in name else (2, 11)
        mask = torch.ones(shape, dtype=torch.long)
        mask[0, ..., 8:] = 0
        inputs = {
            "input_ids": torch.randint(1, 99, shape),
            "attention_mask": mask,
            "token_type_ids": torch.randint(0, 2, shape),
        }
        if labels:
            inputs |= _labels(name)
        return inputs

    def _labels(name: str) -> dict[str, torch.Tensor]:
        tokens, one = torch.randint(0, 2, (2, 11)), torch.tensor([0, 1])
        tokens[:, ::3] = -100
        for kind, labels in {
            "PreTraining": {"labels": tokens, "next_sentence_label": one},
            "MaskedLM": {"labels": tokens},
            "TokenClassification": {"labels": tokens},
            "QuestionAnswering": {"start_positions": torch.tensor([2, 30]), "end_positions": torch.tensor([5, 7])},
            "Model": {},
        }.items():
            if name.endswith(kind):
                return labels
        return {"labels": one}

    return build
