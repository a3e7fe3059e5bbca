"""A tiny vocabulary, files in the official layouts, and a tiny BERT, all made here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import BertConfig, BertModel, BertTokenizerFast, PreTrainedTokenizerBase

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *(f"w{number}" for number in range(60)),
    *"abcdefghijklmnopqrstuvwxyz.,?",
    *(f"##{c}" for c in "abcdefgh0123"),
]


@pytest.fixture(autouse=True)
def _alone():
    """One thread, since these models are tiny; no accelerator left for the next test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return BertTokenizerFast(vocab={word: number for number, word in enumerate([*SPECIAL, *WORDS])})


@pytest.fixture(scope="session")
def encoder(tmp_path_factory, tokenizer) -> Path:
    """A BERT without any head, saved by transformers, dropout included."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_squad(tmp_path) -> Callable[..., Path]:
    """Writes questions, (context, question, [(text, start)]) each, as an official file; gives its folder."""

    def write(name: str, questions: list[tuple[str, str, list[tuple[str, int]]]], **fields: Any) -> Path:
        paragraphs = [
            {
                "context": context,
                "qas": [
                    {
                        "id": f"q{number}",
                        "question": question,
                        "answers": [{"text": text, "answer_start": start} for text, start in answers],
                        **fields,
                    }
                ],
            }
            for number, (context, question, answers) in enumerate(questions)
        ]
        folder = tmp_path / "squad"
        folder.mkdir(exist_ok=True)
        content = {"version": "1.1", "data": [{"title": "Title", "paragraphs": paragraphs}]}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return folder

    return write
