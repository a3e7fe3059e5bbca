"""How a sentence encoder gets smaller elsewhere: the recipe of sentence-transformers, and model2vec."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch.nn import ModuleList

from schubert_hf.data.spans import make_spans
from schubert_hf.data.text import load_documents

RATE = 1e-4  # of the recipe
WARM_UP = 0.1  # of the steps
KEEP = 2  # every second layer stays


def drop_layers(model: str, text: str, *, steps: int, batch_size: int, max_length: int, seed: int) -> Any:
    """Every second layer is dropped, the rest trained towards the dense embeddings by mean squared error.

    That is the example `model_distillation.py` of sentence-transformers, at its learning rate; on our spans of text
    and in our number of batches, so that it has seen what the others have.

    Returns:
        A `SentenceTransformer`.
    """
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MSELoss

    dense, student = SentenceTransformer(model), SentenceTransformer(model)
    bert = student[0].model
    bert.encoder.layer = ModuleList(list(bert.encoder.layer)[::KEEP])
    bert.config.num_hidden_layers = len(bert.encoder.layer)
    if not steps:
        return student
    spans = make_spans(load_documents(text), dense.tokenizer, max_length=max_length, seed=seed).shuffle(seed=seed)
    spans = spans.select(range(min(len(spans), steps * batch_size)))
    texts = dense.tokenizer.batch_decode(list(spans["input_ids"]), skip_special_tokens=True)
    with _length(dense, max_length), _length(student, max_length), tempfile.TemporaryDirectory() as scratch:
        wanted = dense.encode(texts, batch_size=batch_size)
        SentenceTransformerTrainer(
            model=student,
            args=SentenceTransformerTrainingArguments(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=batch_size,
                learning_rate=RATE,
                warmup_steps=int(WARM_UP * steps),
                save_strategy="no",
                dataloader_pin_memory=torch.cuda.is_available(),
                report_to="none",
                seed=seed,
            ),
            train_dataset=Dataset.from_dict({"sentence": texts, "label": list(wanted)}),
            loss=MSELoss(student),
        ).train()
    return student


@contextmanager
def _length(encoder: Any, length: int) -> Iterator[None]:
    """An encoder that reads at most so many word pieces while it is trained."""
    own, encoder.max_seq_length = encoder.max_seq_length, length
    yield
    encoder.max_seq_length = own


def make_static(model: str) -> Any:
    """model2vec's distillation: one vector per word piece, in a space of its own, from no text at all.

    Returns:
        A `SentenceTransformer`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return SentenceTransformer(modules=[StaticEmbedding.from_distillation(model, device="cpu")])
