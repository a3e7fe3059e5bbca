"""A tiny BERT with its tokenizer on disk, and files in the layout of GLUE."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForPreTraining

from schubert_hf.training.tokenizer import train_wordpiece

LENGTH = 24
GOOD, BAD = ["fine", "lovely", "warm", "witty"], ["dull", "awful", "cold", "empty"]


def reviews(number: int) -> list[tuple[str, int]]:
    """Sentences that a good or a bad word decides, with their labels."""
    words = [(word, label) for pair in zip(GOOD, BAD, strict=True) for word, label in zip(pair, (1, 0), strict=True)]
    return [
        (f"the {words[i % 8][0]} film was {'very ' * (i % 3)}{words[i % 8][0]} {i % 5}", words[i % 8][1])
        for i in range(number)
    ]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of transformers, saved by transformers, with a tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    text = Dataset.from_dict({"text": [sentence for sentence, _ in reviews(60)]})
    tokenizer = train_wordpiece(text, vocab_size=90, max_length=LENGTH)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=36,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=LENGTH,
    )
    BertForPreTraining(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows of cells as a file below `tmp_path / "glue"`, and returns that folder."""

    def make(name: str, *rows: tuple[object, ...], mark: bool = False) -> Path:
        path = tmp_path / "glue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8-sig" if mark else "utf-8")
        return tmp_path / "glue"

    return make
