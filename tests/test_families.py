"""BERT's relatives: as SchuBERT they compute the same, and go back to what they were."""

import json

import pytest
import torch
import transformers
from relatives import NAMES, assert_same, build, inputs

from schubert_hf import SchuBertConfigError, SchuBertLoadError, SchuBertModel, convert_bert, load, to_bert
from schubert_hf.conversion import ConversionError
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
    assert {key: tuple(x.shape) for key, x in back.state_dict().items()} == {
        key: tuple(x.shape) for key, x in before.items()
    }
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


def test_an_electra_of_two_widths_is_refused():
    with pytest.raises(SchuBertConfigError, match=r"`embedding_size` is 20, allowed is `hidden_size`, 36"):
        convert_bert(build("electra", "ElectraModel", embedding_size=20))


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
