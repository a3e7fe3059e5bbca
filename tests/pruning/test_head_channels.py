"""What task heads read counts: their channels are scored, and heads that read tokens are refit."""

import pytest
import torch
from oracles import batches, build, plan_without, ragged

from schubert_hf import (
    SchuBertForNextSentencePrediction,
    SchuBertForPreTraining,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
    SchuBertForTokenClassification,
    anatomy,
    compact,
)
from schubert_hf.cost import ParameterCost
from schubert_hf.evaluation.objectives import ClassificationObjective, QuestionAnsweringObjective
from schubert_hf.heads import readers
from schubert_hf.pruning.curvature import curvature_importance
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.training.objective import Objective, PretrainingObjective, inputs_of, real_tokens

CHANNEL = 7


class HeadObjective(Objective):
    """Cross-entropy of whatever a head gives: for each token, or for each text."""

    def count(self, batch):
        return {"loss": len(batch["input_ids"])}

    def forward(self, batch):
        logits = self.model(**inputs_of(batch)).logits
        logits = logits[real_tokens(batch)] if logits.ndim == 3 else logits
        return {"loss": -logits.log_softmax(-1)[:, 1].sum()}


CASES = {
    SchuBertForQuestionAnswering: QuestionAnsweringObjective,
    SchuBertForSequenceClassification: ClassificationObjective,
    SchuBertForTokenClassification: HeadObjective,
    SchuBertForNextSentencePrediction: HeadObjective,
    SchuBertForPreTraining: PretrainingObjective,
}


def labelled(number=6):
    data = batches(number)
    for batch in data:
        batch["next_sentence_label"] = batch["start_positions"] = batch["end_positions"] = torch.tensor([0, 1, 1, 0])
        batch["labels"] = torch.tensor([0, 1, 1, 0])
    return data


def only_heads_read(model, channel):
    """Silences a channel wherever the layers, the transform and the decoder read it."""
    with torch.no_grad():
        for layer in anatomy.layers(model):
            for linear in [*layer.attention.inputs.values(), *layer.filters.inputs.values()]:
                linear.weight[:, channel] = 0
        for reader in readers(model):
            if reader.source == "transform" or reader.place.row.part == "transform":
                reader.module.weight[:, channel] = 0


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_channel_that_only_the_head_reads_is_scored(kind):
    model, data = build(kind, ragged(hidden_sizes=[36, 36, 36])), labelled()
    only_heads_read(model, CHANNEL)
    for reader in readers(model):  # the pooler passes it on, but reads none of it
        if reader.source == "first":
            with torch.no_grad():
                reader.module.weight[:, CHANNEL] = 0
    if kind is SchuBertForPreTraining:
        for batch in data:
            batch["labels"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    scores = curvature_importance(CASES[kind](model), find_groups(model.config, "h"), ParameterCost(model), data)
    assert scores[Group("h", None)][CHANNEL] > 0


@pytest.mark.parametrize("kind", [SchuBertForQuestionAnswering, SchuBertForTokenClassification])
def test_heads_that_read_tokens_are_refit(kind):
    dense = build(kind)
    plan = plan_without(dense.config, {Group("h", None): [1, 20], Group("f", 0): list(range(9))})
    cut, data = compact(dense, plan), batches(30)

    def distance(model):
        with torch.no_grad():
            pairs = zip(*[[m(**b).to_tuple()[0] for b in data] for m in (model, dense)], strict=True)
            return sum(float((ours - theirs).square().mean()) for ours, theirs in pairs)

    parts = ("outputs", "heads", "filters", "norms")
    encoder_alone = restore(compact(dense, plan), dense, plan, data, parts=parts)
    refit = restore(compact(dense, plan), dense, plan, data)
    assert distance(refit) < distance(encoder_alone) < distance(cut)
