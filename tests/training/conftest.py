"""A small corpus from templates, its vocabulary and sentence pairs, and tiny models of sizes all different."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.training.pairs import make_pairs
from schubert_hf.training.tokenizer import train_wordpiece

NOUNS = ["cat", "dog", "bird", "king", "sailor", "teacher", "doctor", "farmer", "child", "river", "Zoë", "captain"]
VERBS = ["sees", "hears", "follows", "finds", "loves", "paints", "carries", "forgets", "remembers"]
PLACES = ["in the house", "at sea", "behind the old tree", "near the red door", "in a quiet town", "every morning"]
LENGTH = 32


def write_corpus(documents: int, seed: int = 0) -> list[str]:
    """Documents of 4 to 12 sentences each; `No. i` makes every sentence of document i its own."""
    rng = random.Random(seed)
    return [
        " ".join(
            f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)} {rng.choice(PLACES)} {number}."
            for _ in range(rng.randint(4, 12))
        )
        for number in range(documents)
    ]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps `datasets` out of the user's cache, and one test's accelerator and threads out of the next."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small are slower on two
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return write_corpus(80)


@pytest.fixture(scope="session")
def documents(corpus: list[str]) -> Dataset:
    return Dataset.from_dict({"text": corpus})


@pytest.fixture(scope="session")
def tokenizer(documents: Dataset) -> PreTrainedTokenizerBase:
    return train_wordpiece(documents, vocab_size=160, max_length=LENGTH)


@pytest.fixture(scope="session")
def pairs(documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    return make_pairs(documents, tokenizer, max_length=LENGTH, seed=0)


@pytest.fixture
def tiny_config(tokenizer: PreTrainedTokenizerBase) -> Callable[..., SchuBertConfig]:
    """Two layers that differ in every width; `dropout` sets both kinds."""

    def build(dropout: float = 0.0) -> SchuBertConfig:
        return SchuBertConfig(
            hidden_sizes=[12, 10],
            filter_sizes=[14, 18],
            head_counts=[3, 2],
            key_query_sizes=[5, 4],
            value_sizes=[3, 6],
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )

    return build


@pytest.fixture
def objective(tiny_config: Callable[..., SchuBertConfig]) -> Callable[..., PretrainingObjective]:
    """The MLM + NSP objective around a new tiny model, the same at each call."""

    def build(dropout: float = 0.0) -> PretrainingObjective:
        torch.manual_seed(1)
        return PretrainingObjective(SchuBertForPreTraining(tiny_config(dropout)))

    return build


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def text_file(tmp_path: Path, corpus: list[str]) -> Path:
    """The corpus as a plain text file, a blank line between documents."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(corpus) + "\n", encoding="utf-8")
    return path
