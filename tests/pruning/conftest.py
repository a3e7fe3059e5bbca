"""A tokenizer, examples and a pruner of seconds: tiny, on the CPU, without dropout unless asked for."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from oracles import QUICK, WORDS, make_examples
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertConfig, SchuBertForPreTraining, SchuBertPruner

# The pruner collects garbage after each phase, and looks through every library of ours: these stay anyway.
gc.freeze()


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """One thread, since tensors of a few numbers are not worth sharing out; no accelerator left for the next test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """99 word pieces: as many as the models here have embeddings."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(WORDS))]
    return BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture(scope="session")
def tiny() -> Callable[..., SchuBertConfig]:
    """Layers that differ in all but h, as a pruned BERT has them; without dropout."""

    def build(**fields: Any) -> SchuBertConfig:
        shape: dict[str, Any] = {
            "hidden_sizes": [40, 40],
            "filter_sizes": [41, 29],
            "head_counts": [3, 2],
            "key_query_sizes": [5, 7],
            "value_sizes": [9, 4],
            "vocab_size": 99,
            "max_position_embeddings": 23,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        return SchuBertConfig(**{**shape, **fields})

    return build


@pytest.fixture(scope="session")
def make_pruner(
    tiny: Callable[..., SchuBertConfig], tokenizer: PreTrainedTokenizerBase
) -> Callable[..., SchuBertPruner]:
    """Build a pruner: keyword arguments are its own or, of the same names, those of its `PruningConfig`."""

    def build(model: Any = None, output_dir: Path | None = None, **options: Any) -> SchuBertPruner:
        if model is None:
            torch.manual_seed(0)
            model = SchuBertForPreTraining(tiny())
        own = ("train_dataset", "eval_dataset", "data_collator", "tokenizer", "objective", "accelerator", "provenance")
        own += ("on_result", "package")
        given = {name: options.pop(name) for name in own if name in options}
        arguments: dict[str, Any] = {
            "train_dataset": make_examples(100),
            "eval_dataset": make_examples(24, seed=1),
            "tokenizer": tokenizer,
            "accelerator": given.get("accelerator") or Accelerator(cpu=True),
        }
        config = PruningConfig(**{**QUICK, **options})
        return SchuBertPruner(model, config, output_dir=output_dir, **{**arguments, **given})

    return build
