"""An endless, shuffled, addressable stream of training examples.

Position p of the stream is one example, always the same one: it decides the epoch, the example in that epoch's order, and
the masks. So what a step trains on depends on nothing but the seed and the step's number: not on the number of processes,
not on how the batch is accumulated, not on where a run was interrupted. Resuming is beginning at another position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import DataCollatorForLanguageModeling

POSITION = "stream_position"
Collator = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


class ExampleStream(Dataset[dict[str, Any]]):
    """Maps a position (0, 1, 2, ...) to an example of `examples`, each epoch in another order.

    Args:
        examples: anything with a length whose items are dicts of features.
        seed: decides the order of every epoch.
        shuffle: without it every epoch has the order of `examples`.
    """

    def __init__(self, examples: Any, *, seed: int = 0, shuffle: bool = True):
        if len(examples) == 0:
            raise ValueError("The training set is empty. Give at least one example.")
        self.examples = examples
        self.seed = seed
        self.shuffle = shuffle
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, offset = divmod(position, len(self.examples))
        if self.shuffle and epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.examples), generator=generator).tolist()
        index = self._order[offset] if self.shuffle else offset
        return {**self.examples[index], POSITION: position}


class MaskingCollator(DataCollatorForLanguageModeling):
    """Pads a batch and masks it dynamically: 15 % of the tokens, of those 80 % `[MASK]`, 10 % random, 10 % unchanged.

    The masks of an example depend on `seed` and its position in the stream alone.
    """

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        examples = [dict(example) for example in examples]
        positions = [example.pop(POSITION, number) for number, example in enumerate(examples)]
        batch = dict(self.tokenizer.pad(examples, return_tensors="pt", pad_to_multiple_of=self.pad_to_multiple_of))
        special = torch.isin(batch["input_ids"], torch.tensor(self.tokenizer.all_special_ids))
        rows = []
        for ids, fixed, position in zip(batch["input_ids"], special, positions, strict=True):
            self.generator = torch.Generator().manual_seed(mix_seed(self.seed or 0, position))
            rows.append(self.torch_mask_tokens(ids[None].clone(), special_tokens_mask=fixed[None]))
        batch["input_ids"] = torch.cat([ids for ids, _ in rows])
        batch["labels"] = torch.cat([labels for _, labels in rows])
        return batch


class PlainCollator:
    """Drops the position before a collator that does not know of it."""

    def __init__(self, collator: Collator):
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.collator([{name: value for name, value in row.items() if name != POSITION} for row in examples])


def stream_loader(
    stream: ExampleStream, collator: Collator, *, start: int, stop: int, batch_size: int, workers: int = 0
) -> DataLoader[dict[str, Any]]:
    """A loader over the positions `start` to `stop` (exclusive), in that order."""
    return DataLoader(
        stream,
        batch_size=batch_size,
        sampler=range(start, stop),
        collate_fn=collator if isinstance(collator, MaskingCollator) else PlainCollator(collator),
        num_workers=workers,
    )


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers; neighbours give unrelated seeds (SplitMix64, Steele et al. 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
