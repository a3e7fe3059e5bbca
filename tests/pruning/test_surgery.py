"""Compaction against its oracle: the gated model whose removed units have alphas of 0."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import (
    CLASSES,
    build,
    build_gates,
    compute,
    cuts,
    difference,
    parameter_cost,
    plan_without,
    ragged,
    surviving,
    zeroed,
)

from schubert_hf import (
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
    SchuBertForSequenceClassification,
    SchuBertModel,
    compact,
)
from schubert_hf.anatomy import UnknownTensorError
from schubert_hf.pruning.gates import fold_tensors
from schubert_hf.pruning.plan import PlanError, PruningPlan
from schubert_hf.pruning.units import Group
from schubert_hf.shape import Shape

CLOSE = 1e-12
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EVEN = {"hidden_sizes": [36, 36], "filter_sizes": [41, 29], "head_counts": [3, 2]}
EVEN |= {"key_query_sizes": [5, 7], "value_sizes": [9, 4]}


def check(kind, removed, config=None):
    """Gated with zeros == compacted, and the size is the predicted one."""
    model = build(kind, config)
    config = model.config
    dimensions = "".join(dict.fromkeys(group.dimension for group in removed))
    gates = zeroed(build_gates(config, dimensions), removed)
    plan = plan_without(config, removed)
    smaller = compact(model, plan, tensors=fold_tensors(model, gates))
    assert difference(compute(smaller), surviving(compute(model, gates), kind, plan)) < CLOSE
    assert smaller.num_parameters() == parameter_cost(config, kind.__name__)(plan.shape)
    assert Shape.of(smaller.config) == plan.shape


@pytest.mark.parametrize("dimension", "hfakv")
@quick
@given(data=st.data())
def test_each_dimension_alone(dimension, data):
    check(SchuBertForPreTraining, data.draw(cuts(ragged(), dimension)))


@pytest.mark.parametrize("kind", CLASSES)
@quick
@given(data=st.data())
def test_projected_embeddings(kind, data):
    """The oracle includes the masked-LM transform, which leads to their width, and the tied decoder."""
    config = ragged(embedding_size=19)
    removed = data.draw(cuts(config, "efakv"))
    check(kind, removed | {Group("h", None): [0, 7, 36]}, config)


@quick
@given(data=st.data(), dimensions=st.sets(st.sampled_from("hfakv"), min_size=2))
def test_mixtures(data, dimensions):
    check(SchuBertForPreTraining, data.draw(cuts(ragged(), "".join(sorted(dimensions)))))


@quick
@given(data=st.data())
def test_even_hidden_sizes(data):
    check(SchuBertForMaskedLM, data.draw(cuts(ragged(**EVEN))), ragged(**EVEN))


@pytest.mark.parametrize("dimensions", ["l", "hfakvl"])
@quick
@given(data=st.data())
def test_layers_that_go(dimensions, data):
    config = ragged(hidden_sizes=[36, 36, 36])
    check(SchuBertForPreTraining, data.draw(cuts(config, dimensions)), config)


@pytest.mark.parametrize("kind", CLASSES)
def test_layers_that_go_from_every_class(kind):
    removed = {Group("l", 0): [0], Group("l", 1): [], Group("l", 2): [0], Group("f", 1): [3], Group("h", None): [7]}
    check(kind, removed, ragged(hidden_sizes=[36, 36, 36]))


def test_without_a_layer_the_others_are_as_they_were():
    config = ragged(hidden_sizes=[36, 36, 36])
    model = build(SchuBertForMaskedLM, config)
    smaller = compact(model, plan_without(config, {Group("l", 1): [0]}))
    assert smaller.config.num_hidden_layers == 2
    assert smaller.config.filter_sizes == [41, 53]
    del model.bert.encoder.layer[1]
    assert difference(compute(smaller), compute(model)) == 0


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class(kind):
    removed = {Group("h", None): [0, 1, 5, 30, 33, 40], Group("f", 0): [2, 40], Group("a", 1): [0]}
    removed |= {Group("k", 0): [4], Group("v", 2): [0, 3, 12]}
    check(kind, removed)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention(attention):
    config = ragged()
    config._attn_implementation = attention
    check(SchuBertForMaskedLM, {Group("k", 0): [0, 1, 2], Group("v", 0): [8], Group("a", 0): [1]}, config)
    plan = plan_without(config, {Group("k", 0): [0]})
    assert compact(build(SchuBertForMaskedLM, config), plan).config._attn_implementation == attention


def test_whole_sublayers_go_and_what_is_left_can_be_cut_again():
    removed = {Group("a", 0): [0, 1, 2], Group("a", 2): [0], Group("f", 1): list(range(29))}
    check(SchuBertForPreTraining, removed)
    hollow = compact(build(SchuBertForPreTraining), plan_without(ragged(), removed))
    assert hollow.config.head_counts == [0, 2, 0]
    assert hollow.config.filter_sizes == [41, 0, 53]
    check(SchuBertForPreTraining, {Group("h", None): [3, 30], Group("k", 1): [0], Group("f", 0): [0]}, hollow.config)


@pytest.mark.parametrize("kind", [SchuBertForMaskedLM, SchuBertForPreTraining])
def test_untied_decoder(kind):
    check(kind, {Group("h", None): [0, 8, 36, 41]}, ragged(tie_word_embeddings=False))


def test_tied_tensors_stay_tied():
    smaller = compact(build(SchuBertForMaskedLM), plan_without(ragged(), {Group("h", None): [0]}))
    assert smaller.cls.predictions.decoder.weight is smaller.bert.embeddings.word_embeddings.weight
    assert smaller.cls.predictions.decoder.bias is smaller.cls.predictions.bias


def test_without_pooler():
    model = build(SchuBertModel, add_pooling_layer=False)
    plan = plan_without(ragged(), {Group("h", None): [4], Group("v", 1): [2]})
    smaller = compact(model, plan)
    assert smaller.pooler is None
    assert smaller.num_parameters() == parameter_cost(ragged(), "SchuBertModel", add_pooling_layer=False)(plan.shape)


def test_a_plan_that_keeps_everything_gives_an_equal_model_that_shares_nothing():
    model = build(SchuBertForPreTraining)
    same = compact(model, PruningPlan.from_kept(Shape.of(model.config), {}))
    assert difference(compute(same), compute(model)) == 0
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert not own & {parameter.data_ptr() for parameter in same.parameters()}


def test_each_head_may_keep_indices_of_its_own():
    """Against the same model with the query and value rows of what goes set to 0."""
    model = build(SchuBertForMaskedLM)
    source = Shape.of(model.config)
    whole = PruningPlan.from_kept(source, {})
    key_query = (((0, 4), (1, 2), (2, 3)), *whole.key_query[1:])
    value = (whole.value[0], ((0, 1, 3), (0, 2, 3)), whole.value[2])
    plan = PruningPlan(source, whole.hidden, whole.filters, whole.heads, key_query, value)
    smaller = compact(model, plan)
    assert smaller.config.key_query_sizes == [2, 7, 3]
    assert smaller.config.value_sizes == [9, 3, 13]
    attention = [layer.attention.self for layer in model.bert.encoder.layer]
    with torch.no_grad():
        for matrix, kept, size in ((attention[0].query, key_query[0], 5), (attention[1].value, value[1], 4)):
            gone = [h * size + n for h, stay in enumerate(kept) for n in range(size) if n not in stay]
            matrix.weight[gone] = 0
            matrix.bias[gone] = 0
    assert difference(compute(smaller), compute(model)) < CLOSE


def test_softmax_scale_stays_that_of_the_dense_head():
    config = ragged()
    config._attn_implementation = "eager"
    model = build(SchuBertForMaskedLM, config)
    removed = {Group("k", 0): [0, 3], Group("k", 1): [1, 2, 4, 6]}
    gates = zeroed(build_gates(config, "k"), removed)
    smaller = compact(model, plan_without(config, removed), tensors=fold_tensors(model, gates))
    ids = torch.arange(22).reshape(2, 11)
    with gates.attached(model):
        dense = model(input_ids=ids, output_attentions=True).attentions
    for ours, theirs in zip(smaller(input_ids=ids, output_attentions=True).attentions, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=CLOSE)
    # No scale had to be stored: the ordinary one serves, and the queries carry the ratio.
    attention = smaller.bert.encoder.layer[0].attention.self
    assert attention.scaling == 3**-0.5
    folded = fold_tensors(model, gates)["bert.encoder.layer.0.attention.self.query.weight"]
    kept = [5 * head + n for head in range(3) for n in (1, 2, 4)]
    torch.testing.assert_close(attention.query.weight.detach(), folded[kept] * (3 / 5) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_mode_stay(dtype):
    model = build(SchuBertForSequenceClassification).to(dtype).train()
    smaller = compact(model, plan_without(ragged(), {Group("k", 0): [0], Group("f", 0): [1]}))
    assert {parameter.dtype for parameter in smaller.parameters()} == {dtype}
    assert smaller.training
    assert all(parameter.requires_grad for parameter in smaller.parameters())


def test_input_is_untouched_and_no_random_number_is_drawn():
    model = build(SchuBertForPreTraining)
    state, config, parameters = copy.deepcopy(model.state_dict()), model.config.to_dict(), list(model.parameters())
    before = torch.get_rng_state()
    compact(model, plan_without(ragged(), {Group("h", None): [1], Group("a", 0): [1], Group("k", 1): [0]}))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config.to_dict() == config
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_plan_of_another_model_is_refused():
    plan = plan_without(ragged(), {Group("f", 0): [0]})
    with pytest.raises(PlanError, match=r"other `filter_sizes`: \(41, 29, 53\), but this model has \(41, 29, 52\)"):
        compact(build(SchuBertModel, ragged(filter_sizes=[41, 29, 52])), plan)


def test_foreign_tensors_are_refused():
    plan = plan_without(ragged(), {Group("f", 0): [0]})
    model = build(SchuBertForMaskedLM)
    model.adapter = torch.nn.Linear(3, 3)
    with pytest.raises(UnknownTensorError, match=r"`adapter` is not a module of SchuBERT"):
        compact(model, plan)
    model = build(SchuBertForMaskedLM)
    model.bert.register_buffer("prior", torch.zeros(3))
    with pytest.raises(UnknownTensorError, match=r"`bert` is not a module of SchuBERT"):
        compact(model, plan)


def test_widths_other_than_the_configs_are_refused():
    model = build(SchuBertForMaskedLM)
    model.bert.encoder.layer[1].intermediate.dense = torch.nn.Linear(31, 30)
    with pytest.raises(UnknownTensorError, match=r"has the shape \(30, 31\), but by the config its axis 0 is 29 wide"):
        compact(model, plan_without(ragged(), {Group("f", 0): [0]}))
    model = build(SchuBertForMaskedLM)
    model.bert.encoder.layer.append(copy.deepcopy(model.bert.encoder.layer[2]))
    with pytest.raises(UnknownTensorError, match=r"encoder\.layer\.3"):
        compact(model, plan_without(ragged(), {Group("f", 0): [0]}))
