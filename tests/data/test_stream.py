"""A position of the stream is one example with one mask, whatever stands around it."""

import math

import pytest
import torch
from datasets import Dataset
from starts import train_wordpiece
from transformers import PreTrainedTokenizerBase

from schubert_hf.data.stream import (
    POSITION,
    ExampleStream,
    MaskingCollator,
    StreamError,
    TokenizerError,
    for_stream,
)
from schubert_hf.training.objective import IGNORED


def test_every_epoch_is_another_permutation() -> None:
    stream = ExampleStream([{"index": number} for number in range(23)], seed=5)
    epochs = [[stream[epoch * 23 + place]["index"] for place in range(23)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (
        ExampleStream(stream.examples, seed=6)[0] != stream[0]
        or ExampleStream(stream.examples, seed=7)[0] != stream[0]
    )


def test_unshuffled_keeps_the_order() -> None:
    stream = ExampleStream([{"index": number} for number in range(4)], shuffle=False)
    assert [stream[position]["index"] for position in range(6)] == [0, 1, 2, 3, 0, 1]


def test_examples_that_are_left_out_come_in_no_epoch() -> None:
    stream = ExampleStream([{"index": number} for number in range(11)], seed=3)
    plain = [stream[position] for position in range(44)]
    gone = {plain[position]["index"] for position in (2, 3, 13)}
    with stream.without([2, 3, 13]):
        inside = [stream[position] for position in range(44)]
    assert [row[POSITION] for row in inside] == list(range(44))
    assert not gone & {row["index"] for row in inside}
    kept = [(ours, theirs) for ours, theirs in zip(inside, plain, strict=True) if theirs["index"] not in gone]
    assert all(ours == theirs for ours, theirs in kept)
    assert [stream[position] for position in range(44)] == plain
    with stream.without(range(11)):  # or nothing would be left
        assert [stream[position] for position in range(44)] == plain


def test_positions_in_any_order_give_the_same() -> None:
    examples = [{"index": number} for number in range(7)]
    forwards = [ExampleStream(examples, seed=1)[position] for position in range(30)]
    stream = ExampleStream(examples, seed=1)
    assert [stream[position] for position in reversed(range(30))][::-1] == forwards


def test_no_examples() -> None:
    with pytest.raises(StreamError, match="at least one"):
        ExampleStream([])


def test_masks_depend_on_the_position_alone(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    stream, collator = ExampleStream(pairs, seed=0), MaskingCollator(tokenizer, seed=0)
    together = collator([stream[position] for position in range(24)])
    assert len({int(length) for length in together["attention_mask"].sum(1)}) > 1  # there is padding
    for size in (1, 5):
        for begin in range(0, 24, size):
            batch = collator([stream[position] for position in range(begin, min(begin + size, 24))])
            for name, values in batch.items():
                width = values.shape[1:]
                expected = together[name][begin : begin + len(values)]
                assert torch.equal(values, expected[:, : width[0]] if width else expected)


def test_masks_change_with_epoch_and_seed(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    stream = ExampleStream(pairs, shuffle=False)
    first, second = stream[0], stream[len(pairs)]
    assert first["input_ids"] == second["input_ids"]
    collator = MaskingCollator(tokenizer, seed=0)
    assert not torch.equal(collator([first])["labels"], collator([second])["labels"])
    assert not torch.equal(collator([first])["labels"], MaskingCollator(tokenizer, seed=1)([first])["labels"])


def test_masking_rates(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    stream, collator = ExampleStream(pairs, shuffle=False), MaskingCollator(tokenizer)
    examples = [stream[position] for position in range(6 * len(pairs))]  # six epochs: about 30,000 tokens
    batch = collator(examples)
    real = batch["attention_mask"].bool()
    original = torch.tensor([token for example in examples for token in example["input_ids"]])
    shown, labels = batch["input_ids"][real], batch["labels"][real]
    ordinary = ~torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    chosen = labels != IGNORED

    assert not (chosen & ~ordinary).any()
    assert torch.equal(labels[chosen], original[chosen])
    assert torch.equal(shown[~chosen], original[~chosen])

    def check(hits: torch.Tensor, of: torch.Tensor, rate: float) -> None:
        number = int(of.sum())
        assert abs(int((hits & of).sum()) - rate * number) < 4 * math.sqrt(number * rate * (1 - rate))

    check(chosen, ordinary, 0.15)
    masked = shown == tokenizer.mask_token_id
    check(masked, chosen, 0.8 + 0.1 / len(tokenizer))
    check(shown == original, chosen, 0.1 + 0.1 / len(tokenizer))
    random_ids = shown[chosen & ~masked & (shown != original)]
    assert len(random_ids.unique()) > 0.9 * len(tokenizer)


def test_batch_is_padded_and_complete(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    examples = sorted((pairs[number] for number in range(20)), key=lambda example: len(example["input_ids"]))
    short, long = examples[0], examples[-1]
    batch = MaskingCollator(tokenizer)([short, long])
    length = len(short["input_ids"])
    assert set(batch) == {"input_ids", "token_type_ids", "next_sentence_label", "attention_mask", "labels"}
    assert batch["attention_mask"][0].tolist() == [1] * length + [0] * (len(long["input_ids"]) - length)
    assert (batch["input_ids"][0, length:] == tokenizer.pad_token_id).all()
    assert (batch["labels"][0, length:] == IGNORED).all()
    assert batch["next_sentence_label"].tolist() == [short["next_sentence_label"], long["next_sentence_label"]]
    assert {values.dtype for values in batch.values()} == {torch.long}


def test_tensors_are_collated_as_lists_are(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    collator = MaskingCollator(tokenizer)
    lists = collator([ExampleStream(pairs)[position] for position in range(3)])
    tensors = collator([ExampleStream(pairs.with_format("torch"))[position] for position in range(3)])
    assert all(torch.equal(lists[name], tensors[name]) for name in lists)


def test_plain_collators_see_no_position() -> None:
    seen = for_stream(lambda rows: rows)([{"index": 1, POSITION: 7}])
    assert seen == [{"index": 1}]


def test_tokenizer_without_mask(documents: Dataset) -> None:
    lacking = train_wordpiece(documents, vocab_size=160, max_length=32)
    lacking.mask_token = None
    with pytest.raises(TokenizerError, match="mask_token"):
        MaskingCollator(lacking)
