"""Tiny folders to export: layers without heads and without filters, odd widths, a tokenizer beside the weights."""

import pytest
import torch
from folders import LONGEST

from schubert_hf import SchuBertConfig

RAGGED = {
    "hidden_sizes": [13, 11, 17],
    "filter_sizes": [19, 0, 7],
    "head_counts": [3, 1, 0],
    "key_query_sizes": [5, 7, 3],
    "value_sizes": [4, 9, 2],
    "max_position_embeddings": LONGEST,
}


@pytest.fixture(scope="session")
def save(tmp_path_factory, tokenizer):
    """Save a tiny model of a class, or its first layers, with weights that matter; returns its folder.

    Tracing takes as long as a model has layers: heads are content with two, of different widths, other libraries with
    one.
    """

    def save(kind, folder=None, layers=3, **fields):
        torch.manual_seed(1)
        sizes = {name: size[:layers] if isinstance(size, list) else size for name, size in RAGGED.items()}
        model = kind(SchuBertConfig(**sizes, vocab_size=len(tokenizer), **fields)).eval()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, mean=1.0 if "LayerNorm.weight" in name else 0.0, std=0.3)
        folder = folder or tmp_path_factory.mktemp(kind.__name__)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save
