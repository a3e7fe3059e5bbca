import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from schubert_hf import (
    SchuBertConfig,
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
    SchuBertForSequenceClassification,
    SchuBertModel,
)
from schubert_hf.auto import MODELS
from schubert_hf.modeling_schubert import BiasOnly, resize_stream

HEADS = list(MODELS.values())
EMPTY = {"filter_sizes": [41, 0, 53], "head_counts": [0, 2, 0]}


def close(got, want, atol=1e-5):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


@pytest.fixture
def ids():
    return torch.randint(1, 99, (2, 11))


def by_hand(model, config, hidden):
    """The encoder of the paper in a loop over layers and heads; `hidden`: (S, h) after the embeddings."""
    for i, layer in enumerate(model.encoder.layer):
        h, a, f = config.hidden_sizes[i], config.head_counts[i], config.filter_sizes[i]
        k, v = config.key_query_sizes[i], config.value_sizes[i]
        stream = torch.zeros(len(hidden), h)
        shared = min(h, hidden.shape[1])
        stream[:, :shared] = hidden[:, :shared]
        attention, output = layer.attention.self, layer.attention.output
        update = output.dense.bias.expand(len(stream), -1)
        for n in range(a):
            keys, values = slice(n * k, (n + 1) * k), slice(n * v, (n + 1) * v)
            q = stream @ attention.query.weight[keys].T + attention.query.bias[keys]
            key = stream @ attention.key.weight[keys].T + attention.key.bias[keys]
            value = stream @ attention.value.weight[values].T + attention.value.bias[values]
            weights = (q @ key.T / k**0.5).softmax(-1)
            update = update + weights @ value @ output.dense.weight[:, values].T
        stream = output.LayerNorm(stream + update)
        update = layer.output.dense.bias.expand(len(stream), -1)
        if f:
            filters = F.gelu(stream @ layer.intermediate.dense.weight.T + layer.intermediate.dense.bias)
            update = update + filters @ layer.output.dense.weight.T
        hidden = layer.output.LayerNorm(stream + update)
    return hidden


def test_resize_stream_crops_and_pads():
    x = torch.arange(6.0).view(2, 3)
    assert resize_stream(x, 3) is x
    assert resize_stream(x, 2).tolist() == [[0, 1], [3, 4]]
    assert resize_stream(x, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]


@pytest.mark.parametrize("fields", [{}, EMPTY, {"filter_sizes": [0, 0, 0], "head_counts": [0, 0, 0]}])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_encoder_equals_the_maths(ragged, randomised, ids, fields, implementation):
    config = ragged(**fields)
    config._attn_implementation = implementation
    model = randomised(SchuBertModel(config))
    with torch.no_grad():
        states = model(ids).last_hidden_state
        for row, got in zip(ids, states, strict=True):
            close(got, by_hand(model, config, model.embeddings(row[None])[0]))


def test_no_tensor_of_size_zero(ragged):
    model = SchuBertModel(ragged(**EMPTY))
    state = model.state_dict()
    assert all(tensor.numel() for tensor in state.values())
    assert [name for name in state if name.startswith("encoder.layer.2.attention") and "LayerNorm" not in name] == [
        "encoder.layer.2.attention.output.dense.bias"
    ]
    assert "encoder.layer.1.intermediate.dense.weight" not in state
    assert state["encoder.layer.1.output.dense.bias"].tolist() == [0.0] * 31
    assert all(
        module.in_features and module.out_features for module in model.modules() if isinstance(module, nn.Linear)
    )
    assert sum(isinstance(module, BiasOnly) for module in model.modules()) == 3


@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")  # transformers' call
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports its compiler
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # as intended
@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_implementations_agree(ragged, randomised, batch, implementation, masked):
    """k > v, v > k, k == v, and no heads at all."""
    fields = {"head_counts": [3, 2, 0], "key_query_sizes": [16, 32, 3], "value_sizes": [32, 16, 13]}
    model = randomised(SchuBertModel(ragged(**fields)))
    inputs = batch(SchuBertModel)
    if not masked:
        del inputs["attention_mask"]
    keep = inputs.get("attention_mask", torch.ones(2, 11)).bool()
    with torch.no_grad():
        model.set_attn_implementation("eager")
        want = model(**inputs).last_hidden_state
        model.set_attn_implementation(implementation)
        with torch.compiler.set_stance("force_eager"):  # flex without its compiler: slow, and the same
            close(model(**inputs).last_hidden_state[keep], want[keep])


def test_a_mask_of_ones_masks_nothing(ragged, randomised, ids, monkeypatch):
    """Attention is told of no mask, so that sdpa takes its fastest kernel; one padded token is enough to need it."""
    model, masks, attend = randomised(SchuBertModel(ragged())), [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *x, **named: masks.append(named["attn_mask"]) or attend(*x, **named)
    )
    mask = torch.ones_like(ids)
    model(ids)
    model(ids, attention_mask=mask)
    assert masks == [None] * 6
    mask[0, 10] = 0
    model(ids, attention_mask=mask)
    assert [found.dtype for found in masks[6:]] == [torch.bool] * 3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_changes_nothing(ragged, randomised, ids, implementation):
    config = ragged()
    config._attn_implementation = implementation
    model = randomised(SchuBertModel(config))
    mask = torch.ones_like(ids)
    mask[:, 7:] = 0
    with torch.no_grad():
        close(model(ids, mask).last_hidden_state[:, :7], model(ids[:, :7]).last_hidden_state)


@pytest.mark.parametrize("fields", [{}, EMPTY])
@pytest.mark.parametrize("model_class", HEADS)
def test_recorded_outputs_count_every_layer(ragged, batch, model_class, fields):
    config = ragged(**fields)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    out = model(**batch(model_class), output_hidden_states=True, output_attentions=True)
    assert [state.shape[-1] for state in out.hidden_states] == [37, 37, 31, 43]
    assert [weights.shape[1] for weights in out.attentions] == config.head_counts
    assert {weights.shape[2:] for weights in out.attentions} == {(11, 11)}


@pytest.mark.parametrize("model_class", HEADS)
def test_tuples_and_dicts(ragged, batch, model_class):
    model, inputs = model_class(ragged()).eval(), batch(model_class)
    as_dict, as_tuple = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    for got, want in zip(as_tuple, as_dict.to_tuple(), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("model_class", HEADS[1:])
def test_loss_trains_every_parameter(ragged, batch, model_class):
    model = model_class(ragged(**EMPTY)).train()
    model(**batch(model_class)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("num_labels", [1, 3])
def test_regression_and_several_labels(ragged, ids, num_labels):
    model = SchuBertForSequenceClassification(ragged(num_labels=num_labels)).eval()
    labels = torch.rand(2, num_labels)
    out = model(ids, labels=labels)
    if num_labels == 1:
        torch.testing.assert_close(out.loss, F.mse_loss(out.logits, labels))
        assert model.config.problem_type == "regression"
    else:
        torch.testing.assert_close(out.loss, F.binary_cross_entropy_with_logits(out.logits, labels))
        assert model.config.problem_type == "multi_label_classification"


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")  # the name of 5.x
def test_gradient_checkpointing_changes_no_gradient(ragged, batch):
    inputs = batch(SchuBertForPreTraining)
    model = SchuBertForPreTraining(ragged(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert all(layer.gradient_checkpointing for layer in model.bert.encoder.layer)
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient, atol=1e-7)


def test_chunked_filters_change_nothing(ragged, randomised, ids):
    whole, chunked = SchuBertModel(ragged()), SchuBertModel(ragged(chunk_size_feed_forward=1))
    chunked.load_state_dict(randomised(whole).state_dict())
    with torch.no_grad():
        close(chunked.eval()(ids).last_hidden_state, whole(ids).last_hidden_state)


def test_inputs_embeds_and_positions(ragged, ids):
    model = SchuBertModel(ragged()).eval()
    embedded = model.get_input_embeddings()(ids)
    assert embedded.shape == (2, 11, 37)
    positions = torch.arange(11)[None]
    close(model(inputs_embeds=embedded, position_ids=positions).pooler_output, model(ids).pooler_output)
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": embedded}):
        with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
            model(**wrong)


def test_no_pooler(ragged, ids):
    assert SchuBertModel(ragged(), add_pooling_layer=False).eval()(ids).pooler_output is None


@pytest.mark.parametrize("model_class", [SchuBertForMaskedLM, SchuBertForPreTraining])
@pytest.mark.parametrize("size", [77, 121])
def test_resized_vocabulary_stays_tied(ragged, tmp_path, model_class, size):
    model = model_class(ragged()).eval()
    model.resize_token_embeddings(size, mean_resizing=False)
    assert model.config.vocab_size == size
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    assert model.num_parameters() == model.config.num_parameters(model_class.__name__)
    model.save_pretrained(tmp_path)
    ids = torch.randint(1, 70, (2, 5))
    close(model_class.from_pretrained(tmp_path)(ids)[0], model(ids)[0])


@pytest.mark.parametrize("model_class", HEADS)
@pytest.mark.parametrize("fields", [{}, {**EMPTY, "tie_word_embeddings": False}])
def test_save_and_load(ragged, randomised, batch, tmp_path, model_class, fields):
    model = randomised(model_class(ragged(**fields)))
    model.save_pretrained(tmp_path)
    again, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    inputs = batch(model_class, labels=False)
    with torch.no_grad():  # to rounding: a file mapped into memory may begin at another alignment, and kernels follow
        close(again(**inputs)[0], model(**inputs)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(ragged, tmp_path, ids, dtype):
    model = SchuBertModel(ragged(**EMPTY)).to(dtype).eval()
    assert model(ids).last_hidden_state.dtype == dtype
    model.save_pretrained(tmp_path)
    assert SchuBertModel.from_pretrained(tmp_path).dtype == dtype


def test_fresh_weights_are_berts(ragged):
    model = SchuBertForPreTraining(ragged(**EMPTY, initializer_range=0.05))
    for name, parameter in model.named_parameters():
        if "LayerNorm.weight" in name:
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            assert 0.03 < parameter.std() < 0.07
    assert (model.get_input_embeddings().weight[0] == 0).all()


@pytest.mark.parametrize("fields", [{}, EMPTY])
def test_exports_with_a_dynamic_batch(ragged, randomised, ids, fields):
    model = randomised(SchuBertModel(ragged(**fields)))
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (ids,), dynamic_shapes={"input_ids": {0: batch}}, strict=False)
    more = torch.randint(1, 99, (5, 11))
    with torch.no_grad():
        close(program.module()(more).last_hidden_state, model(more).last_hidden_state)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_compiles_into_one_graph(ragged, randomised, ids, implementation):
    config = ragged(**EMPTY)
    config._attn_implementation = implementation
    model = randomised(SchuBertModel(config))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        close(compiled(ids).last_hidden_state, model(ids).last_hidden_state)


def test_hidden_sizes_may_go_anywhere(ragged, ids):
    for sizes in itertools.permutations([5, 1, 9]):
        out = SchuBertForMaskedLM(ragged(hidden_sizes=sizes)).eval()(ids)
        assert out.logits.shape == (2, 11, 99)


def test_widths_in_the_way_of_newer_transformers_are_not_taken(ragged):
    """`per_layer_config`, where it is set, forbids to read `hidden_size` of the config; our lists stay."""
    before = ragged(**EMPTY).to_dict()
    assert SchuBertConfig.from_dict({**before, "per_layer_config": {"0": {"hidden_size": 5}}}).to_dict() == before
