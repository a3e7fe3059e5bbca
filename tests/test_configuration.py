import copy
import json
import pickle

import numpy as np
import pytest
from transformers import BertConfig

from schubert_hf import SchuBertConfig, SchuBertConfigError, SchuBertModel

LISTS = ("hidden_sizes", "filter_sizes", "head_counts", "key_query_sizes", "value_sizes")


def test_default_is_bert_base():
    config = SchuBertConfig()
    assert config.hidden_sizes == [768] * 12
    assert config.filter_sizes == [3072] * 12
    assert config.head_counts == [12] * 12
    assert config.key_query_sizes == config.value_sizes == [64] * 12
    assert config.num_parameters() == 109_482_240


def test_bert_scalars_fill_the_lists():
    config = SchuBertConfig(hidden_size=36, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37)
    assert [getattr(config, name) for name in LISTS] == [[36] * 2, [37] * 2, [4] * 2, [9] * 2, [9] * 2]


def test_scalars_are_read_off_the_lists(ragged):
    config = ragged()
    assert config.hidden_size == 43
    assert config.num_hidden_layers == 3
    assert config.num_attention_heads == 3
    assert config.intermediate_size == 53


def test_missing_lists_take_the_length_of_the_given(ragged):
    config = SchuBertConfig(filter_sizes=[5, 0, 7], hidden_size=36, num_attention_heads=4)
    assert config.hidden_sizes == [36] * 3
    assert config.key_query_sizes == [9] * 3


def test_tuples_become_lists_of_their_own(ragged):
    widths = [5, 6, 7]
    config = ragged(filter_sizes=(5, 6, 7), head_counts=widths)
    widths[0] = 99
    assert config.filter_sizes == [5, 6, 7]
    assert config.head_counts == [5, 6, 7]


def test_a_bert_config_is_a_valid_input(bert_config, tmp_path, caplog):
    bert = bert_config(num_labels=3, hidden_act="relu", architectures=["BertForMaskedLM"])
    bert.save_pretrained(tmp_path)
    for config in (SchuBertConfig.from_pretrained(tmp_path), SchuBertConfig.from_dict(bert.to_dict())):
        assert config.model_type == config.to_dict()["model_type"] == "schubert"
        assert config.hidden_sizes == [36, 36]
        assert config.key_query_sizes == [9, 9]
        assert (config.num_labels, config.hidden_act) == (3, "relu")
        assert config.architectures == ["SchuBertForMaskedLM"]
    assert not caplog.records


def test_shared_fields_have_berts_defaults():
    bert, config = BertConfig().to_dict(), SchuBertConfig().to_dict()
    shared = bert.keys() & config.keys() - {"model_type", "transformers_version"}
    assert {name: bert[name] for name in shared} == {name: config[name] for name in shared}
    assert bert.keys() - config.keys() == {"use_cache"}


@pytest.mark.parametrize("fields", [{}, {"filter_sizes": [0, 5, 0], "head_counts": [0, 0, 0], "num_labels": 3}])
def test_round_trips(ragged, tmp_path, fields):
    config = ragged(**fields)
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    config.save_pretrained(tmp_path)
    for again in (
        SchuBertConfig.from_pretrained(tmp_path),
        SchuBertConfig.from_dict(config.to_dict()),
        SchuBertConfig.from_dict(config.to_diff_dict()),
        SchuBertConfig(**json.loads((tmp_path / "config.json").read_text())),
    ):
        again.transformers_version = None
        assert again == config
    assert copy.deepcopy(config).hidden_sizes is not config.hidden_sizes


MALFORMED = {
    "a number": ({"hidden_sizes": 5}, ["`hidden_sizes`", "5", "for each layer"]),
    "a string": ({"hidden_sizes": "5"}, ["`hidden_sizes`", "'5'"]),
    "an array": ({"head_counts": np.array([1, 2])}, ["`head_counts`", "array([1, 2])"]),
    "no layer": ({"value_sizes": []}, ["`value_sizes`", "[]"]),
    "a float": ({"filter_sizes": [4, 4.0]}, ["`filter_sizes`", "4.0 in layer 1, of type float", "int()"]),
    "a bool": ({"head_counts": [True]}, ["`head_counts`", "True in layer 0, of type bool"]),
    "numpy's int": ({"head_counts": [np.int64(3)]}, ["`head_counts`", "in layer 0, of type int64", "int()"]),
    "None inside": ({"head_counts": [None]}, ["`head_counts`", "None in layer 0, of type NoneType"]),
    "hidden 0": ({"hidden_sizes": [4, 0]}, ["`hidden_sizes`", "0 in layer 1", "at least 1"]),
    "key 0": ({"key_query_sizes": [0]}, ["`key_query_sizes`", "0 in layer 0", "at least 1"]),
    "value 0": ({"value_sizes": [0]}, ["`value_sizes`", "0 in layer 0", "at least 1"]),
    "negative": ({"filter_sizes": [-1]}, ["`filter_sizes`", "-1 in layer 0", "at least 0"]),
    "lengths": ({"hidden_sizes": [4, 4], "filter_sizes": [4]}, ["`hidden_sizes` has 2", "`filter_sizes` has 1"]),
    "hidden_size": ({"hidden_size": 5, "hidden_sizes": [5, 6]}, ["`hidden_size` is 5", "`hidden_sizes`: 6"]),
    "layers": ({"num_hidden_layers": 3, "filter_sizes": [5, 5]}, ["`num_hidden_layers` is 3", "lists: 2"]),
    "heads": ({"num_attention_heads": 2, "head_counts": [3, 1]}, ["`num_attention_heads` is 2", "`head_counts`: 3"]),
    "filters": ({"intermediate_size": 2, "filter_sizes": [3]}, ["`intermediate_size` is 2", "`filter_sizes`: 3"]),
    "no multiple": ({"hidden_size": 37}, ["`key_query_sizes` is not given", "37 and 12", "Give `key_query_sizes`"]),
    "no heads": ({"num_attention_heads": 0}, ["`key_query_sizes` is not given", "768 and 0"]),
    "scalar type": ({"hidden_size": 768.0}, ["`hidden_size` is 768.0", "an int from 1"]),
    "no layers": ({"num_hidden_layers": 0}, ["`num_hidden_layers` is 0", "an int from 1"]),
    "vocabulary": ({"vocab_size": 0}, ["`vocab_size` is 0"]),
    "positions": ({"max_position_embeddings": -1}, ["`max_position_embeddings` is -1"]),
    "dropout": ({"hidden_dropout_prob": 1.5}, ["`hidden_dropout_prob` is 1.5", "0 to 1"]),
    "not a number": ({"layer_norm_eps": float("nan")}, ["`layer_norm_eps` is nan"]),
    "padding": ({"pad_token_id": 99, "vocab_size": 99}, ["`pad_token_id` is 99", "`vocab_size` 99"]),
    "decoder": ({"is_decoder": True}, ["`is_decoder` is True", "allowed is False"]),
    "cross": ({"add_cross_attention": True}, ["`add_cross_attention` is True"]),
    "relative": ({"position_embedding_type": "relative_key"}, ["`position_embedding_type` is 'relative_key'"]),
    "roberta": ({"model_type": "roberta"}, ["`model_type` is 'roberta'", "'schubert'", "'bert'"]),
}


@pytest.mark.parametrize(("fields", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_shapes(fields, words):
    with pytest.raises(SchuBertConfigError) as error:
        SchuBertConfig(**fields)
    assert [word for word in words if word not in str(error.value)] == []
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": "99"}, "`vocab_size` is '99', allowed is an int from 1"),
        ({"hidden_dropout_prob": None}, "`hidden_dropout_prob` is None, allowed is a number from 0.0 to 1.0"),
        ({"layer_norm_eps": float("inf")}, "`layer_norm_eps` is inf"),
        ({"chunk_size_feed_forward": 2.0}, "`chunk_size_feed_forward` is 2.0"),
        ({"chunk_size_feed_forward": None}, "`chunk_size_feed_forward` is None"),
        ({"architectures": 5}, "`architectures` is 5"),
        ({"architectures": [5]}, r"`architectures` is \[5\]"),
        ({"hidden_act": "gleu"}, "`hidden_act` is 'gleu', allowed is gelu, .*relu"),
        ({"hidden_act": ["gelu"]}, r"`hidden_act` is \['gelu'\], allowed is gelu"),
        ({"num_labels": "two"}, "`num_labels` is 'two'"),
        ({"id2label": {"first": "a"}}, "`id2label`.*'first'"),
        ({"dtype": "float23"}, "`dtype`.*float23"),
        ({"tie_word_embeddings": "no"}, "`tie_word_embeddings` is 'no'"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "`problem_type="),
    ],
)
def test_wrong_values_of_other_fields(fields, words):
    for make in (lambda: SchuBertConfig(**fields), lambda: SchuBertConfig.from_dict(fields)):
        with pytest.raises(SchuBertConfigError, match=words):
            make()


def test_a_config_that_is_assigned_wrong_values(ragged):
    config = ragged()
    for name, value in (("architectures", 5), ("hidden_act", None), ("num_labels", -1), ("vocab_size", True)):
        with pytest.raises(SchuBertConfigError, match=f"`{name}` is {value}"):
            setattr(config, name, value)
    assert config == ragged()


def test_assigning_a_list_derives_the_scalars_again(ragged):
    config = ragged()
    config.hidden_sizes = (5, 6, 7)
    config.filter_sizes = [1, 0, 1]
    assert (config.hidden_sizes, config.hidden_size, config.intermediate_size) == ([5, 6, 7], 7, 1)
    config.validate()


@pytest.mark.parametrize("widths", [None, [1, 2.0, 3], [0, 1, 2], "abc"])
def test_assigning_a_bad_list_changes_nothing(ragged, widths):
    config = ragged()
    with pytest.raises(SchuBertConfigError, match="`hidden_sizes`"):
        config.hidden_sizes = widths
    assert config == ragged()


def test_another_depth_needs_all_lists(ragged, tmp_path):
    config = ragged()
    config.hidden_sizes = [5, 6]
    with pytest.raises(SchuBertConfigError, match="`hidden_sizes` has 2, `filter_sizes` has 3"):
        config.validate()
    with pytest.raises(SchuBertConfigError, match="`hidden_sizes` has 2"):
        config.save_pretrained(tmp_path)
    for name in LISTS[1:]:
        setattr(config, name, getattr(config, name)[:2])
    config.validate()
    assert config.num_hidden_layers == 2


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"])
def test_scalars_of_a_finished_config_follow_the_lists(ragged, name):
    config = ragged()
    setattr(config, name, getattr(config, name))
    with pytest.raises(SchuBertConfigError, match=f"`{name}` is 2, .*whole new list"):
        setattr(config, name, 2)


@pytest.mark.parametrize("edit", [lambda c: c.hidden_sizes.append(3), lambda c: c.head_counts.__setitem__(0, 2.5)])
def test_edits_in_place_are_caught_before_use_and_save(ragged, tmp_path, edit):
    config = ragged()
    edit(config)
    with pytest.raises(SchuBertConfigError, match=r"`(hidden_sizes|head_counts)`"):
        config.validate()
    with pytest.raises(SchuBertConfigError):
        config.save_pretrained(tmp_path)
    with pytest.raises(SchuBertConfigError):
        SchuBertModel(config)
    assert not (tmp_path / "config.json").exists()


def test_edit_in_place_that_leaves_a_scalar_behind(ragged):
    config = ragged()
    config.hidden_sizes[-1] = 5
    with pytest.raises(SchuBertConfigError, match="`hidden_size` is 43"):
        config.validate()


def test_loading_checks_what_was_written(ragged, tmp_path):
    ragged().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "filter_sizes": [41, -29, 53]}))
    with pytest.raises(SchuBertConfigError, match="-29 in layer 1"):
        SchuBertConfig.from_pretrained(tmp_path)
    path.write_text(json.dumps({**saved, "model_type": "layoutlm"}))
    with pytest.raises(SchuBertConfigError, match="'layoutlm'"):
        SchuBertConfig.from_pretrained(tmp_path)


def test_loading_takes_whole_lists_as_overrides(ragged, tmp_path):
    ragged().save_pretrained(tmp_path)
    assert SchuBertConfig.from_pretrained(tmp_path, filter_sizes=[1, 2, 3]).intermediate_size == 3
    with pytest.raises(SchuBertConfigError, match="`filter_sizes` has 2"):
        SchuBertConfig.from_pretrained(tmp_path, filter_sizes=[1, 2])


def test_embeddings_of_their_own_width(ragged, tmp_path):
    plain = ragged()
    assert (plain.embedding_size, plain.project_embeddings) == (37, False)
    assert not {"embedding_size", "project_embeddings"} & set(plain.to_dict())  # config.json is as it was
    plain.hidden_sizes = [8, 9, 10]
    assert plain.embedding_size == 8
    narrow = ragged(embedding_size=19)
    assert narrow.project_embeddings
    assert narrow.flops(11) == ragged().flops(11) + 2 * 11 * 19 * 37
    square = ragged(project_embeddings=True)
    assert square.embedding_size == 37
    for config in (narrow, square):
        config.save_pretrained(tmp_path)
        opened = SchuBertConfig.from_pretrained(tmp_path)
        assert (opened.embedding_size, opened.project_embeddings) == (config.embedding_size, True)
    for fields, words in (
        ({"embedding_size": 38}, "`embedding_size` is 38, but it is at most .*`hidden_sizes`: 37"),
        ({"embedding_size": 19, "project_embeddings": False}, "`embedding_size` is 19, but it is the first"),
        ({"embedding_size": 0}, "`embedding_size` is 0, allowed is an int from 1"),
    ):
        with pytest.raises(SchuBertConfigError, match=words):
            ragged(**fields)


def test_a_file_that_holds_a_list_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(SchuBertConfigError, match=r"config\.json holds no JSON object"):
        SchuBertConfig.from_pretrained(tmp_path)
