"""The rise of the loss against its definition, and against loss that is really lost."""

import copy

import pytest
import torch
from oracles import batches, build, ragged

from schubert_hf import SchuBertForMaskedLM, SchuBertForPreTraining
from schubert_hf.cost import ParameterCost, unit_cost
from schubert_hf.pruning.curvature import curvature_importance, measure_rises
from schubert_hf.pruning.embeddings import measure_embeddings, project_embeddings
from schubert_hf.pruning.units import EMBEDDINGS, STREAM, Group, find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.training.outputs import Outputs


def labelled(number=3):
    data = batches(number)
    for batch in data:
        batch["labels"] = batch["input_ids"].clone()
        batch["labels"][:, ::2] = -100
        batch["labels"][batch["attention_mask"] == 0] = -100
    return data


def scores_of(model, dimensions, data):
    cost = ParameterCost(model)
    groups = find_groups(model.config, dimensions)
    scores = curvature_importance(PretrainingObjective(model), groups, cost, data)
    shape = Shape.of(model.config)
    return {group: score * unit_cost(cost, shape, *group) for group, score in scores.items()}


def observed(model, name, data, side):
    """x and dL/dx of a module's input or output at real tokens, by autograd itself."""
    found = []

    def keep(x):
        x.retain_grad()
        found.append(x)

    module = model.get_submodule(name)
    if side == "input":
        handle = module.register_forward_pre_hook(lambda _m, args: keep(args[0]))
    else:
        handle = module.register_forward_hook(lambda _m, args, output: keep(output))
    objective, xs, gs, items = PretrainingObjective(model).eval(), [], [], 0
    for batch in data:
        objective(batch)["mlm"].backward()
        real = batch["attention_mask"].bool()
        x = found.pop()
        xs.append(x.detach()[real])
        gs.append(x.grad[real])
        items += objective.count(batch)["mlm"]
    handle.remove()
    model.zero_grad()
    return torch.cat(xs), torch.cat(gs), items


def test_against_autograd():
    model, data = build(SchuBertForMaskedLM), labelled()
    scores = scores_of(model, "fakv", data)
    x, g, items = observed(model, "bert.encoder.layer.1.output.dense", data, "input")
    torch.testing.assert_close(scores[Group("f", 1)], x.var(0, correction=0) * g.square().sum(0) / 2 / items)

    x, g, items = observed(model, "bert.encoder.layer.0.attention.output.dense", data, "input")
    both = torch.cov(x.mT, correction=0) * (g.mT @ g) / 2 / items  # 3 heads of 9 values
    heads = torch.stack([both[9 * a : 9 * a + 9, 9 * a : 9 * a + 9].sum() for a in range(3)])
    values = torch.stack([both[n::9, n::9].sum() for n in range(9)])
    torch.testing.assert_close(scores[Group("a", 0)], heads)
    torch.testing.assert_close(scores[Group("v", 0)], values)

    q, g, items = observed(model, "bert.encoder.layer.2.attention.self.query", data, "output")
    torch.testing.assert_close(scores[Group("k", 2)], (q * g).square().sum(0) / 2 / items)


@pytest.mark.parametrize("labels", [True, False])
def test_one_look_at_the_projected_model_says_what_the_model_itself_does(labels):
    """Its decoder is tied to embeddings without a projection: the channels of h are read there, too."""
    model, data = build(SchuBertForMaskedLM), labelled()
    make = PretrainingObjective
    if not labels:
        make = Outputs(draws=8).taught_by(copy.deepcopy(model), data[0], temperature=1.0, seed=0)
    cost, groups = ParameterCost(model), find_groups(model.config, "hfakv")
    projected = project_embeddings(model, measure_embeddings(make(model), data))
    found = measure_rises(make(projected), {**groups, EMBEDDINGS: projected.config.embedding_size}, data)
    own = found.without_projection().by_cost(cost, Shape.of(model.config))
    wanted = curvature_importance(make(model), groups, cost, data)
    assert own.keys() == wanted.keys()
    for group, score in wanted.items():
        torch.testing.assert_close(own[group], score, rtol=1e-7, atol=1e-14)
    in_projected = found.by_cost(cost, Shape.of(projected.config))
    assert float((own[STREAM] / in_projected[STREAM]).std()) > 0.01  # and not the same but for the price


def test_the_model_is_as_it_was():
    model, data = build(SchuBertForMaskedLM).train(), labelled(1)
    model.bert.embeddings.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    scores_of(model, "hfakv", data)
    assert model.training
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_channel_that_nothing_reads_is_worth_nothing():
    model, data = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36])), labelled()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                linear.weight[:, 7] = 0
            layer.intermediate.dense.weight[:, 7] = 0
        model.cls.predictions.transform.dense.weight[:, 7] = 0
        model.bert.embeddings.word_embeddings.weight[:, 7] = 0  # the decoder's column, too
    scores = scores_of(model, "h", data)[Group("h", None)]
    assert scores[7] == 0
    assert scores.argmin() == 7
    assert (scores > 0).sum() == 35


def test_layers_are_worth_what_the_loss_rises_by_without_them():
    model, data = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36])), labelled()
    scores = scores_of(model, "l", data)

    def loss(model):
        objective = PretrainingObjective(model).eval()
        with torch.no_grad():
            return sum(float(objective(b)["mlm"]) for b in data) / sum(objective.count(b)["mlm"] for b in data)

    for layer in range(3):
        without = copy.deepcopy(model)
        del without.bert.encoder.layer[layer]
        assert float(scores[Group("l", layer)]) == pytest.approx(max(0.0, loss(without) - loss(model)), abs=1e-9)


def test_processes_add_up():
    model, data = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36])), labelled(4)
    groups = find_groups(model.config, "hfakvl")
    cost = ParameterCost(model)
    whole = curvature_importance(PretrainingObjective(model), groups, cost, data)
    # Two processes of the same data each see half of it twice: sums double, and everything is relative.
    doubled = curvature_importance(PretrainingObjective(model), groups, cost, data, lambda tensor: 2 * tensor)
    for group in groups:
        torch.testing.assert_close(doubled[group], whole[group])


def test_a_model_as_wide_as_its_texts_are_long():
    """Shapes (batch, h) and (batch, seq) are the same then."""
    model = build(SchuBertForPreTraining, ragged(hidden_sizes=[11, 11, 11]))
    data = labelled(2)
    for batch in data:
        batch["next_sentence_label"] = torch.tensor([0, 1, 1, 0])
    cost = ParameterCost(model)
    scores = curvature_importance(PretrainingObjective(model), find_groups(model.config, "hf"), cost, data)
    assert all(bool(torch.isfinite(score).all()) for score in scores.values())
