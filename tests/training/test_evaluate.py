"""evaluate gives the means that plain PyTorch gives, and the same at every call."""

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.training.evaluate import evaluate, unigram_loss
from schubert_hf.training.objective import IGNORED, PretrainingObjective


@pytest.mark.parametrize("examples", [None, 21])
def test_equals_plain_pytorch(
    objective: Callable[..., PretrainingObjective],
    accelerator: Accelerator,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    examples: int | None,
) -> None:
    own, collator = objective(dropout=0.3), MaskingCollator(tokenizer, seed=4)
    stream = ExampleStream(pairs.select(range(30)), shuffle=False)
    metrics = evaluate(accelerator, own, stream, collator, batch_size=8, examples=examples)
    assert own.training

    batch = collator([stream[position] for position in range(examples or 30)])
    own.eval()
    with torch.no_grad():
        output = own.model(**batch)
    chosen = batch["labels"] != IGNORED
    labels, logits = batch["labels"][chosen], output.prediction_logits[chosen]
    following = batch["next_sentence_label"]
    expected = {
        "mlm": cross_entropy(logits, labels).item(),
        "nsp": cross_entropy(output.seq_relationship_logits, following).item(),
        "loss": output.loss.item(),
        "mlm_accuracy": (logits.argmax(-1) == labels).float().mean().item(),
        "nsp_accuracy": (output.seq_relationship_logits.argmax(-1) == following).float().mean().item(),
    }
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_same_at_every_call_and_batch_size(
    objective: Callable[..., PretrainingObjective],
    accelerator: Accelerator,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    own, collator = objective(dropout=0.3), MaskingCollator(tokenizer)
    stream = ExampleStream(pairs.select(range(30)), shuffle=False)
    first, second, cut = (
        evaluate(accelerator, own, stream, collator, batch_size=size, examples=999) for size in (16, 16, 7)
    )
    assert first == second
    assert cut == pytest.approx(first, rel=1e-5)


def test_unigram_loss_by_hand(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    train, held_out = pairs.select(range(60)), ExampleStream(pairs.select(range(60, 90)), shuffle=False)
    collator = MaskingCollator(tokenizer)
    special = set(tokenizer.all_special_ids)
    counts = {token: 1 for token in range(len(tokenizer)) if token not in special}
    for ids in train["input_ids"]:
        for token in ids:
            if token not in special:
                counts[token] += 1
    labels = collator([held_out[position] for position in range(30)])["labels"]
    chances = torch.tensor([counts[int(label)] for label in labels[labels != IGNORED]]).double() / sum(counts.values())
    assert unigram_loss(
        train, held_out, collator, vocab_size=len(tokenizer), special_ids=tokenizer.all_special_ids
    ) == pytest.approx(float(-chances.log().mean()))
