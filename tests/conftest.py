"""Fixtures, all built in code: a small corpus, and tiny models whose sizes all differ and are odd, so that a swapped
axis cannot pass."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # also of processes that tests start: there is a worker for every core
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Scripts and runtimes that ask for all cores get this worker's: threads that wait for each other's core are slow.
    worker, workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[worker::workers] or cores)

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from oracles import RAGGED
from starts import train_wordpiece
from transformers import PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.data.pairs import make_pairs
from schubert_hf.training.objective import PretrainingObjective

torch.set_num_threads(1)
transformers.logging.disable_progress_bar()


def pytest_collection_finish() -> None:
    """Every run frees memory by collecting garbage, and walking through all that is imported takes a second."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take most of a tiny model's run."""
    from schubert_hf.hub import writing

    for draw in ("draw_widths", "draw_rounds"):
        monkeypatch.setattr(writing, draw, lambda *_: None)


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
