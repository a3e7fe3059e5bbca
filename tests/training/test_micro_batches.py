"""A batch that is cut up by length holds the same examples, and gives the same losses for less padding."""

import pytest
import torch
from oracles import build, ragged

from schubert_hf import (
    SchuBertForMaskedLM,
    SchuBertForQuestionAnswering,
    SchuBertForTokenClassification,
    SchuBertModel,
)
from schubert_hf.training.micro_batches import cut_by_length, sparse_gradients
from schubert_hf.training.outputs import Outputs

LENGTHS = [3, 12, 4, 11, 5, 3, 12, 7, 6, 5, 4, 3, 8, 10, 9, 3, 4, 6]


def padded(lengths, width=14):
    """Examples of these lengths, padded to `width` behind their tokens."""
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {
        "input_ids": torch.randint(5, 90, mask.shape) * mask,
        "attention_mask": mask,
        "number": torch.arange(len(mask)),
    }


def rows(batch):
    """Every example by its number: the tokens that are not padding."""
    real = batch["attention_mask"].bool()
    return {int(n): ids[one].tolist() for n, ids, one in zip(batch["number"], batch["input_ids"], real, strict=True)}


def test_the_same_examples_with_less_padding() -> None:
    batch = padded(LENGTHS)
    parts = cut_by_length(batch)
    assert len(parts) == 2  # of at least eight examples
    assert {number: row for part in parts for number, row in rows(part).items()} == rows(batch)
    for part in parts:
        assert part["attention_mask"].shape[-1] == part["attention_mask"].sum(-1).max()
    assert parts[0]["attention_mask"].shape[-1] < parts[1]["attention_mask"].shape[-1]


def test_few_widths_recur_over_many_batches() -> None:
    widths, real, given = set(), 0, 0
    for _ in range(50):
        batch = padded(torch.randint(3, 129, (32,)).tolist(), width=128)
        for part in cut_by_length(batch, few_widths=True):
            widths.add(part["attention_mask"].shape[-1])
            real += int(part["attention_mask"].sum())
            given += part["attention_mask"].numel()
    assert 4 < len(widths) <= 14
    assert given < 1.35 * real  # 1.28; without 1.20 in 87 widths; whole batches 2.0


@pytest.mark.parametrize(
    "batch",
    [
        padded(LENGTHS[:15], width=12),
        padded([14] * 40),
        padded([13, 14] * 20),
        {"input_ids": torch.ones(40, 14, dtype=torch.long)},
    ],
    ids=["small", "no padding", "hardly any", "no mask"],
)
def test_a_batch_that_would_not_become_smaller_stays_whole(batch) -> None:
    assert cut_by_length(batch) == [batch]


def test_padding_in_front_stays() -> None:
    """Without a table of positions it would move the tokens."""
    flipped = {name: x.flip(-1) if x.ndim > 1 else x for name, x in padded(LENGTHS).items()}
    assert cut_by_length(flipped) == [flipped]


def test_choices_are_cut_to_the_longest_of_them() -> None:
    flat = padded([*LENGTHS, *LENGTHS])
    batch = {name: x.view(len(LENGTHS), 2, -1) if x.ndim > 1 else x[: len(LENGTHS)] for name, x in flat.items()}
    parts = cut_by_length(batch)
    assert len(parts) == 2
    assert sum(int(part["attention_mask"].sum()) for part in parts) == sum(LENGTHS) * 2
    assert {part["input_ids"].shape[1] for part in parts} == {2}


@pytest.mark.parametrize("head", [SchuBertModel, SchuBertForQuestionAnswering, SchuBertForTokenClassification])
def test_losses_add_up_to_those_of_the_whole(head) -> None:
    dense, other = (build(head, ragged(hidden_sizes=[36, 36, 36])) for _ in range(2))
    batch = {name: x for name, x in padded(LENGTHS).items() if name != "number"}
    objective = Outputs().taught_by(dense, batch, temperature=1.0, seed=0)(other).eval()
    whole, parts = objective(batch), cut_by_length(batch)
    assert len(parts) > 1
    for term in objective.terms:
        torch.testing.assert_close(sum(objective(part)[term] for part in parts), whole[term], rtol=1e-4, atol=1e-5)
        assert sum(objective.count(part)[term] for part in parts) == objective.count(batch)[term]


@pytest.mark.parametrize("head", [SchuBertModel, SchuBertForMaskedLM], ids=["alone", "tied"])
def test_gradients_that_are_gathered_as_rows_are_those_of_whole_tables(head) -> None:
    model = build(head, ragged(hidden_sizes=[36, 36, 36])).eval()
    parts = cut_by_length({name: x for name, x in padded(LENGTHS).items() if name != "number"})
    gradients = []
    for sparse in (False, True):
        model.zero_grad()
        with sparse_gradients(model, sparse):
            for part in parts:
                model(**part)[0].square().sum().backward()
        gradients.append({name: x.grad for name, x in model.named_parameters() if x.grad is not None})
        assert not any(x.grad.is_sparse for x in model.parameters() if x.grad is not None)
    dense, gathered = gradients
    assert dense.keys() == gathered.keys()
    for name, gradient in dense.items():
        torch.testing.assert_close(gathered[name], gradient, rtol=1e-4, atol=1e-4)
