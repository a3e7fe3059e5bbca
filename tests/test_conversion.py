import json

import pytest
import torch
import transformers
from oracles import save_edited
from safetensors.torch import load_file, save_file

from schubert_hf import (
    SchuBertConfigError,
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
    SchuBertLoadError,
    SchuBertModel,
    convert_bert,
    load,
    to_bert,
)
from schubert_hf.auto import MODELS
from schubert_hf.conversion import ConversionError

HEADS = list(MODELS.values())
ONE_LAYER = {"hidden_sizes": [4], "filter_sizes": [7], "head_counts": [1], "key_query_sizes": [4], "value_sizes": [4]}


def bert_class(model_class):
    return getattr(transformers, model_class.__name__.removeprefix("Schu"))


def assert_same(got, want, atol=1e-5):
    """Every output: loss, logits, hidden states, attentions."""
    want = {name: value for name, value in want.items() if name != "cross_attentions"}
    assert got.keys() == want.keys()
    for name in want:
        both = (
            [(got[name], want[name])]
            if isinstance(want[name], torch.Tensor)
            else list(zip(got[name], want[name], strict=True))
        )
        assert both
        for a, b in both:
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture
def bert(bert_config, randomised):
    """Build a BERT of random weights, biases and LayerNorms included; class, then config fields."""

    def build(bert_class, **fields):
        config = bert_config(attn_implementation="eager", **fields)
        return randomised(bert_class(config))

    return build


@pytest.fixture
def edited(bert, tmp_path):
    """Save a BertForMaskedLM, with its tensors edited; the folder."""

    def build(edit, bert_class=transformers.BertForMaskedLM):
        return save_edited(bert(bert_class), edit, tmp_path)

    return build


@pytest.mark.parametrize("model_class", HEADS)
@pytest.mark.parametrize("fields", [{}, {"hidden_act": "relu", "num_labels": 2, "tie_word_embeddings": False}])
def test_bert_in_memory_gives_the_same(bert, batch, model_class, fields):
    original = bert(bert_class(model_class), **fields)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    model = model_class.from_bert(original)
    assert type(convert_bert(original)) is type(model) is model_class
    inputs = {**batch(model_class), "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        assert_same(model(**inputs), original(**inputs))

    assert model.state_dict().keys() == before.keys()
    for parameter in model.parameters():
        parameter.data.zero_()
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("model_class", HEADS)
def test_bert_checkpoint_gives_the_same(bert, batch, tmp_path, model_class, caplog):
    original = bert(bert_class(model_class), num_labels=2)
    original.save_pretrained(tmp_path)
    inputs = {**batch(model_class), "output_hidden_states": True, "output_attentions": True}
    for model in (model_class.from_pretrained(tmp_path, attn_implementation="eager"), load(tmp_path)):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            assert_same(model(**inputs), original(**inputs))
    assert not caplog.records


def test_dtype_mode_and_implementation_are_kept(bert):
    original = bert(transformers.BertModel).to(torch.bfloat16).train()
    model = SchuBertModel.from_bert(original)
    assert (model.dtype, model.training) == (torch.bfloat16, True)
    assert model.config._attn_implementation == "eager"
    back = to_bert(model)
    assert (back.dtype, back.training, back.config._attn_implementation) == (torch.bfloat16, True, "eager")


def test_a_bert_without_pooler_stays_without(bert, bert_config):
    original = transformers.BertModel(bert_config(), add_pooling_layer=False)
    model = SchuBertModel.from_bert(original)
    assert model.pooler is None
    assert to_bert(model).pooler is None
    assert SchuBertModel.from_bert(bert(transformers.BertForMaskedLM)).pooler is None
    assert SchuBertModel.from_bert(bert(transformers.BertForPreTraining)).pooler is not None


@pytest.mark.parametrize("model_class", HEADS)
def test_there_and_back(bert, batch, model_class):
    original = bert(bert_class(model_class), num_labels=2, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    back = to_bert(convert_bert(original))
    assert type(back) is type(original)
    assert back.config.id2label == {0: "no", 1: "yes"}
    inputs = batch(model_class)
    with torch.no_grad():
        assert_same(back(**inputs), original(**inputs), atol=1e-6)
    assert {name: tuple(t.shape) for name, t in back.state_dict().items()} == {
        name: tuple(t.shape) for name, t in original.state_dict().items()
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "`hidden_sizes` is .37, 31, 43."),
        ({"hidden_sizes": [36] * 3}, "`filter_sizes` is"),
        ({**ONE_LAYER, "value_sizes": [3]}, "`value_sizes` 3.*key_query == value"),
        ({**ONE_LAYER, "head_counts": [2]}, "`head_counts` 2.*heads . key_query == hidden"),
        ({**ONE_LAYER, "filter_sizes": [0]}, "`filter_sizes` 0.*no empty sublayer"),
    ],
)
def test_no_way_back_from_other_shapes(ragged, fields, words):
    with pytest.raises(ConversionError, match=words):
        to_bert(SchuBertModel(ragged(**fields)))


def test_only_schubert_goes_back(bert):
    with pytest.raises(ConversionError, match="'bert' model"):
        to_bert(bert(transformers.BertModel))


def test_names_of_the_first_berts(edited, batch, bert):
    """The released checkpoints call LayerNorm's vectors gamma and beta and store position ids."""

    def age(tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(23)[None]

    folder = edited(age)
    assert SchuBertForMaskedLM.from_pretrained(folder).bert.embeddings.LayerNorm.weight.std() > 0.1


def test_base_into_head_and_head_into_base(bert, tmp_path, batch):
    original = bert(transformers.BertModel)
    original.save_pretrained(tmp_path / "base")
    model = SchuBertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    inputs = batch(SchuBertModel)
    with torch.no_grad():
        want = original(**inputs)
        assert_same(model.bert(**inputs), want)
        model.save_pretrained(tmp_path / "head")
        assert_same(SchuBertModel.from_pretrained(tmp_path / "head")(**inputs), want)
    assert model.classifier.weight.shape == (3, 36)
    assert 0.01 < model.classifier.weight.std() < 0.03


def test_what_a_checkpoint_lacks_is_fresh_and_reported(bert, tmp_path):
    bert(transformers.BertForMaskedLM).save_pretrained(tmp_path)
    _, info = SchuBertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.removeprefix("bert.").rsplit(".", 1)[0] for name in info["missing_keys"]} == {
        "pooler.dense",
        "cls.seq_relationship",
    }
    _, info = SchuBertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {"qa_outputs.weight", "qa_outputs.bias"}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("bert.encoder.layer.1.output.dense.weight"), "missing: encoder.layer.1.output.dense.weight"),
        (lambda t: t.pop("bert.embeddings.word_embeddings.weight"), "missing: .*embeddings.word_embeddings.weight"),
        (lambda t: t.pop("cls.predictions.transform.dense.bias"), "missing: cls.predictions.transform.dense.bias"),
        (lambda t: t.update({"bert.encoder.layer.2.x": torch.ones(1)}), "left over: encoder.layer.2.x"),
        (lambda t: t.update({"lstm.weight": torch.ones(1)}), "left over: lstm.weight"),
        (lambda t: t.update({"cls.predictions.x": torch.ones(1)}), "left over: cls.predictions.x"),
        (
            lambda t: t.update({"bert.encoder.layer.0.intermediate.dense.bias": torch.ones(38)}),
            r"of another shape: encoder.layer.0.intermediate.dense.bias \(38,\) for \(37,\)",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(edited, edit, words):
    folder = edited(edit)
    with pytest.raises(SchuBertLoadError, match=words):
        SchuBertForMaskedLM.from_pretrained(folder)
    with pytest.raises(SchuBertLoadError, match=words):
        SchuBertForMaskedLM.from_pretrained(folder, ignore_mismatched_sizes=True)


def test_all_that_is_wrong_is_one_error(edited):
    def edit(tensors):
        tensors["bert.a"] = tensors.pop("bert.encoder.layer.0.attention.self.query.weight")
        tensors["bert.encoder.layer.0.attention.self.key.bias"] = torch.ones(2)

    with pytest.raises(
        SchuBertLoadError, match=r"missing: .*query.weight; left over: a; of another shape: .*key.bias"
    ):
        SchuBertForMaskedLM.from_pretrained(edited(edit))


def test_a_schubert_checkpoint_without_a_tensor(ragged, tmp_path):
    SchuBertForMaskedLM(ragged(filter_sizes=[0, 1, 2])).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.encoder.layer.0.output.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SchuBertLoadError, match=r"missing: encoder.layer.0.output.dense.bias"):
        SchuBertForMaskedLM.from_pretrained(tmp_path)


def test_a_head_of_another_size_starts_afresh_when_asked(bert, tmp_path):
    bert(transformers.BertForSequenceClassification, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(SchuBertLoadError, match=r"classifier.weight \(3, 36\) for \(5, 36\)"):
        SchuBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    model = SchuBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert model.classifier.out_features == 5


def test_nothing_is_unpickled(bert, tmp_path):
    model = bert(transformers.BertForMaskedLM)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SchuBertLoadError, match=r"no safetensors weights.*save_pretrained\(folder\)"):
        SchuBertForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(SchuBertLoadError, match="`use_safetensors` is False"):
        SchuBertForMaskedLM.from_pretrained(tmp_path, use_safetensors=False)


def test_other_models_are_refused(tmp_path):
    tiny = {"vocab_size": 99, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    other = transformers.LayoutLMForMaskedLM(transformers.LayoutLMConfig(**tiny, intermediate_size=7))
    other.save_pretrained(tmp_path)
    for opener in (SchuBertForMaskedLM.from_pretrained, load):
        with pytest.raises(SchuBertConfigError, match="`model_type` is 'layoutlm'"):
            opener(tmp_path)
    with pytest.raises(SchuBertLoadError, match="'layoutlm' model"):
        SchuBertForMaskedLM.from_dense(other)
    with pytest.raises(ConversionError, match="LayoutLMForMaskedLM"):
        convert_bert(other)


def test_decoders_are_refused(bert, tmp_path):
    decoder = bert(transformers.BertLMHeadModel, is_decoder=True)
    decoder.save_pretrained(tmp_path)
    for refused in (
        lambda: SchuBertForMaskedLM.from_bert(decoder),
        lambda: SchuBertForMaskedLM.from_pretrained(tmp_path),
        lambda: load(tmp_path),
    ):
        with pytest.raises(SchuBertConfigError, match="`is_decoder` is True"):
            refused()


def test_relative_positions_are_refused(edited):
    folder = edited(lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "position_embedding_type": "relative_key"}))
    with pytest.raises(SchuBertConfigError, match="'relative_key'"):
        SchuBertForMaskedLM.from_pretrained(folder)


@pytest.mark.parametrize("content", ["[1]", "null", '"bert"'])
def test_a_config_that_holds_no_object(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for refused in (SchuBertForMaskedLM.from_pretrained, load):
        with pytest.raises(OSError, match=r"config\.json.* holds no JSON object"):
            refused(tmp_path)


def test_a_bert_config_makes_no_schubert(bert_config):
    with pytest.raises(SchuBertLoadError, match="`config` is a BertConfig of model type 'bert'"):
        SchuBertModel(bert_config())


def test_a_checkpoint_that_names_no_class_is_the_encoder(bert, tmp_path):
    bert(transformers.BertModel).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(load(tmp_path)) is SchuBertModel
