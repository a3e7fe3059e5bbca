"""Pruning on a task: the task head's loss, the fine-tuned model as the teacher, the same algorithm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import WORDS
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from schubert_hf import SchuBertConfig, SchuBertForQuestionAnswering, SchuBertForSequenceClassification
from schubert_hf.evaluation.objectives import (
    ClassificationObjective,
    QuestionAnsweringObjective,
    RegressionObjective,
)
from schubert_hf.pruning.learning_rate import HIGHEST, MEASURED, find_learning_rate

METHODS = ["schubert", "auto"]
HEADS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "classification": (
        SchuBertForSequenceClassification,
        AutoModelForSequenceClassification,
        ClassificationObjective,
        {"num_labels": 3},
    ),
    "regression": (
        SchuBertForSequenceClassification,
        AutoModelForSequenceClassification,
        RegressionObjective,
        {"num_labels": 1},
    ),
    "answers": (SchuBertForQuestionAnswering, AutoModelForQuestionAnswering, QuestionAnsweringObjective, {}),
}


def make_labelled(kind: str, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Examples whose label can be read off their tokens; of 8 to 14 tokens."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for _ in range(number):
        length = int(torch.randint(8, 15, (1,), generator=generator))
        ids = torch.randint(5, 5 + WORDS, (length,), generator=generator).tolist()
        place = 1 + ids[0] % 5
        labels: dict[str, Any] = {
            "classification": {"labels": ids[0] % 3},
            "regression": {"labels": ids[0] / 20},
            "answers": {"start_positions": place, "end_positions": place + 1},
        }[kind]
        examples.append({"input_ids": ids, **labels})
    return examples


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    labels = {name: torch.tensor([row[name] for row in rows]) for name in rows[0] if name != "input_ids"}
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), **labels}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", HEADS)
def test_a_task_model_is_pruned_with_its_own_loss_and_teacher(
    kind: str,
    method: str,
    tiny: Callable[..., SchuBertConfig],
    make_pruner: Callable[..., Any],
    tmp_path: Path,
) -> None:
    head, auto, objective, fields = HEADS[kind]
    torch.manual_seed(0)
    model = head(tiny(**fields))
    pruner = make_pruner(
        model,
        tmp_path / "pruned",
        method=method,
        target=0.7,
        teacher_weight=1.0,
        teacher_hidden_weight=0.5,
        objective=objective,
        train_dataset=make_labelled(kind, 100),
        eval_dataset=make_labelled(kind, 24, seed=1),
        data_collator=collate,
    )
    result = pruner.prune()
    assert result.kept <= 0.7
    terms = set(objective.terms)
    for record in result.rounds:
        for losses in (record.before, record.after_cut, record.after_recovery):
            assert terms <= set(losses)
    opened = auto.from_pretrained(tmp_path / "pruned").eval()
    batch = collate(make_labelled(kind, 5, seed=2))
    ours, theirs = (objective(used.cpu()).predict(batch).logits for used in (result.model, opened))
    for term in objective.terms:
        torch.testing.assert_close(ours[term], theirs[term])


def test_the_task_head_reads_fewer_channels_where_h_shrinks(tiny, make_pruner):
    head, _, objective, fields = HEADS["classification"]
    torch.manual_seed(0)
    model = head(tiny(**fields))
    result = make_pruner(
        model,
        method="schubert",
        dimensions="h",
        target=0.7,
        recovery_steps=0,
        objective=objective,
        train_dataset=make_labelled("classification", 100),
        eval_dataset=make_labelled("classification", 24, seed=1),
        data_collator=collate,
    ).prune()
    assert result.model.classifier.in_features == result.model.config.hidden_sizes[-1] < 40


def test_the_learning_rate_is_found_on_a_task_too(tiny, make_pruner):
    """By the loss of its own head."""
    for kind, task in HEADS.items():
        head, _, objective, fields = task
        data = {
            "train_dataset": make_labelled(kind, 80),
            "eval_dataset": make_labelled(kind, 24, seed=1),
            "data_collator": collate,
        }
        torch.manual_seed(0)
        options = {"rounds": 1, "target": 0.8, "recovery_steps": 12, "objective": objective, **data}
        result = make_pruner(head(tiny(**fields)), **options).prune()
        assert result.to_json()["config"]["recovery_learning_rate"] is None
        least = find_learning_rate(lambda rate: 1 + rate, 4, 1.0, 12)
        assert MEASURED[0] < least <= result.rounds[0].learning_rate <= HIGHEST
        assert result.rounds[0].best_step in (0, 6, 9, 12)
