"""BERT's relatives: as SchuBERT they compute the same, and go back to what they were."""

import json

import pytest
import torch
import transformers
from oracles import save_edited
from relatives import CONFIGS, NAMES, PREFIX, assert_same, build, inputs

from schubert_hf import (
    SchuBertConfig,
    SchuBertConfigError,
    SchuBertForMaskedLM,
    SchuBertForNextSentencePrediction,
    SchuBertForSequenceClassification,
    SchuBertLoadError,
    SchuBertModel,
    convert_bert,
    load,
    to_bert,
)
from schubert_hf.conversion import ConversionError, load_for_pretraining
from schubert_hf.families.others import REFUSED
from schubert_hf.hub.inspection import inspect


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_a_model_in_memory_gives_the_same_and_goes_back(family, name):
    theirs = build(family, name)
    before = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    ours = convert_bert(theirs)
    assert ours.config.family == family
    for segments in (False, True):
        assert_same(ours, theirs, inputs(theirs, segments=segments))
    back = to_bert(ours)
    assert type(back) is type(theirs)
    assert_same(back, theirs, inputs(theirs, segments=True), atol=1e-6)
    after = back.state_dict()
    assert after.keys() == before.keys()
    for key, tensor in before.items():  # each is used; the rows of a RoBERTa's table that no token has are not
        unused = 2 if "position_embeddings" in key and not ours.config.padding_takes_positions else 0
        assert torch.equal(after[key][unused:], tensor[unused:]), key
    for parameter in ours.parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in theirs.state_dict().items())


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_a_checkpoint_gives_the_same(family, name, tmp_path, caplog):
    theirs = build(family, name, dtype=torch.float16).float()
    theirs.half().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours, loaded = load(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert ours.dtype == torch.float32
    assert load(tmp_path).dtype == torch.float16
    assert ours.name_or_path == ours.config.name_or_path == str(tmp_path)
    assert_same(ours, theirs.float(), inputs(theirs, segments=True))
    assert not caplog.records


def test_real_tokens_behind_padding_give_the_same():
    """Padding takes no position there and here. A pooler would read the first padding token, which means nothing."""
    theirs = build("roberta", "RobertaForMaskedLM")
    ours, given = convert_bert(theirs), inputs(theirs, left=True)
    assert_same(ours, theirs, given)
    ours.bert.embeddings.padding = None
    with pytest.raises(AssertionError):
        assert_same(ours, theirs, given)


def test_an_electra_discriminator_is_its_encoder(tmp_path):
    theirs = build("electra", "ElectraForPreTraining")
    theirs.save_pretrained(tmp_path)
    for ours in (convert_bert(theirs), load(tmp_path)):
        assert type(ours) is SchuBertModel
        assert ours.pooler is None
        assert_same(ours, theirs.electra, inputs(theirs, segments=True))


def test_an_electra_of_one_width_has_no_projection():
    theirs = build("electra", "ElectraForMaskedLM", embedding_size=36)
    ours = convert_bert(theirs)
    assert not ours.config.project_embeddings
    assert_same(ours, theirs, inputs(theirs))
    assert_same(to_bert(ours), theirs, inputs(theirs), atol=1e-6)


def test_an_electra_of_wider_embeddings_is_refused():
    with pytest.raises(SchuBertConfigError, match=r"`embedding_size` is 40, but it is at most .*`hidden_sizes`: 36"):
        convert_bert(build("electra", "ElectraModel", embedding_size=40))


def test_no_way_back_to_a_family_without_a_projection():
    for family, size in (("bert", 20), ("electra", 36)):
        sizes = {"hidden_size": 36, "num_attention_heads": 4, "num_hidden_layers": 2, "embedding_size": size}
        ours = SchuBertModel(SchuBertConfig(**sizes, vocab_size=99, family=family, project_embeddings=True))
        with pytest.raises(ConversionError, match=f"`embedding_size` is {size}, with a projection"):
            to_bert(ours)


@pytest.mark.parametrize("family", REFUSED)
def test_other_families_are_refused_with_a_reason_and_a_way_out(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    for opener in (load, SchuBertModel.from_pretrained, inspect):
        with pytest.raises(SchuBertConfigError, match=r"cannot become a SchuBERT: .*\. Take one that can, such as `"):
            opener(tmp_path)


def test_other_families_in_memory_are_refused_too():
    sizes = {"vocab_size": 99, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    theirs = transformers.MPNetModel(transformers.MPNetConfig(**sizes, intermediate_size=7))
    for convert in (convert_bert, SchuBertModel.from_dense):
        with pytest.raises((ConversionError, SchuBertLoadError), match="MPNet cannot become a SchuBERT"):
            convert(theirs)


def test_a_class_without_counterpart():
    theirs = build("roberta", "RobertaForCausalLM", is_decoder=False)
    with pytest.raises(ConversionError, match="'RobertaForCausalLM'"):
        convert_bert(theirs)


@pytest.mark.parametrize(("family", "name"), [("roberta", "RobertaForMaskedLM"), ("electra", "ElectraForMaskedLM")])
def test_names_of_old_checkpoints(family, name, tmp_path):
    def age(tensors):
        for key in [key for key in tensors if "LayerNorm" in key]:
            tensors[key.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(key)
        tensors[f"{family}.embeddings.position_ids"] = torch.arange(25)[None]

    theirs = build(family, name)
    assert_same(load(save_edited(theirs, age, tmp_path)), theirs, inputs(theirs))


@pytest.mark.parametrize("name", ["RobertaModel", "DistilBertModel", "ElectraModel"])
def test_a_head_that_the_checkpoint_lacks_is_fresh_and_reported(name, tmp_path):
    theirs = build(name.removesuffix("Model").lower(), name)
    theirs.save_pretrained(tmp_path)
    ours, loaded = SchuBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4, output_loading_info=True)
    assert {key.rpartition(".")[0] for key in loaded["missing_keys"]} == {"bert.pooler.dense", "classifier"}
    assert ours.classifier.weight.shape == (4, 36)
    given = inputs(theirs)
    with torch.no_grad():
        want = theirs(**given).last_hidden_state * given["attention_mask"][..., None]
        got = ours.bert(**given).last_hidden_state * given["attention_mask"][..., None]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("roberta", "RobertaModel"),
        ("distilbert", "DistilBertForTokenClassification"),
        ("electra", "ElectraForPreTraining"),
    ],
)
def test_a_checkpoint_without_a_masked_lm_head_is_told_from_one_with_it(family, name, tmp_path):
    build(family, name).save_pretrained(tmp_path / "without")
    with pytest.raises(ConversionError, match="no masked-language-model head"):
        load_for_pretraining(tmp_path / "without")
    build(family, PREFIX[family] + "ForMaskedLM").save_pretrained(tmp_path / "with")
    found = load_for_pretraining(tmp_path / "with")
    assert type(found) is SchuBertForMaskedLM
    assert found.name_or_path == str(tmp_path / "with")


LAYER = "encoder.layer.1.output.dense"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(f"roberta.{LAYER}.weight"), f"missing: {LAYER}.weight"),
        (lambda t: t.update({"roberta.adapter.weight": torch.ones(1)}), "left over: adapter.weight"),
        (lambda t: t.update({f"roberta.{LAYER}.bias": torch.ones(38)}), rf"of another shape: {LAYER}.bias \(38,\)"),
    ],
)
def test_checkpoints_that_do_not_fit(edit, words, tmp_path):
    folder = save_edited(build("roberta", "RobertaForMaskedLM"), edit, tmp_path)
    with pytest.raises(SchuBertLoadError, match=words):
        load(folder)


def test_other_positions_than_absolute_ones_are_refused(tmp_path):
    config = {**CONFIGS["roberta"], "model_type": "roberta", "position_embedding_type": "relative_key_query"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SchuBertConfigError, match="'relative_key_query', allowed is 'absolute'"):
        SchuBertConfig.from_pretrained(tmp_path)


def test_the_masked_lm_head_has_an_activation_of_its_own():
    theirs = build("roberta", "RobertaForMaskedLM", hidden_act="relu")
    with pytest.raises(SchuBertLoadError, match="`hidden_act` is 'relu', but the masked-LM head of a 'roberta'"):
        convert_bert(theirs)
    assert_same(SchuBertModel.from_dense(theirs.roberta), theirs.roberta, inputs(theirs))


def test_no_way_back_to_a_head_that_the_family_lacks():
    ours = SchuBertForNextSentencePrediction.from_dense(build("roberta", "RobertaModel"))
    with pytest.raises(ConversionError, match="of the family 'roberta', which has no such class"):
        to_bert(ours)


def test_a_checkpoint_from_before_the_families_opens_as_before(tmp_path, ragged, randomised):
    """Its config has none of the fields that other families need."""
    model = randomised(SchuBertForSequenceClassification(ragged(num_labels=3)))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for field in ("family", "pooler_act", "padding_takes_positions", "add_pooling_layer"):
        del config[field]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = torch.randint(1, 99, (2, 11))
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(ids).logits, model(ids).logits)
        assert load(tmp_path).config.family == "bert"
        ids[:, :3] = 0  # padding takes positions
        pooled = SchuBertModel.from_pretrained(tmp_path)(ids, position_ids=torch.arange(11)[None]).pooler_output
        assert torch.equal(model.bert(ids).pooler_output, pooled)
