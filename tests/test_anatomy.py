import pytest
import torch
from oracles import CLASSES, build, ragged

from schubert_hf.anatomy import Axis, UnknownTensorError, check_tensors, place, place_of_tensor
from schubert_hf.pruning.units import Group, check_dimensions, find_groups


@pytest.mark.parametrize("kind", CLASSES)
def test_the_table_describes_every_tensor_of_every_class(kind):
    check_tensors(build(kind))
    check_tensors(build(kind, ragged(head_counts=[0, 2, 1], filter_sizes=[41, 0, 53], tie_word_embeddings=False)))


def test_axes():
    assert place_of_tensor("bert.encoder.layer.1.attention.output.dense.weight").axes(2) == (
        Axis("hidden", 1),
        Axis("value", 1),
    )
    assert place_of_tensor("encoder.layer.11.intermediate.dense.bias").axes(1) == (Axis("filter", 11),)
    assert place_of_tensor("bert.embeddings.word_embeddings.weight").axes(2) == (None, Axis("hidden", 0))
    assert place_of_tensor("cls.predictions.transform.dense.weight").axes(2) == (Axis("hidden", 0), Axis("hidden", -1))
    assert place_of_tensor("cls.predictions.bias").axes(1) == (None,)


def test_only_the_six_matrices_are_gated():
    model = build(CLASSES[1])
    gated = {name for name, _ in model.named_modules() if isinstance(_, torch.nn.Linear) and place(name).row.gated}
    assert len(gated) == 3 * 6


@pytest.mark.parametrize(
    "module", ["", "adapter", "bert.encoder.layer.0.attention.self.query.lora_A", "xcls.predictions"]
)
def test_other_modules_are_unknown(module):
    with pytest.raises(UnknownTensorError, match="Remove it from the model"):
        place(module)


@pytest.mark.parametrize(("given", "letters"), [("vh", "hv"), ("hfakv", "hfakv"), (["a", "f"], "fa"), ("lh", "hl")])
def test_dimensions_come_in_one_order(given, letters):
    assert check_dimensions(given) == letters


@pytest.mark.parametrize("given", ["", "hh", "x", "h f", ["hidden"]])
def test_other_dimensions_are_refused(given):
    with pytest.raises(ValueError, match="give one or more of h"):
        check_dimensions(given)


def test_layers_are_groups_of_one_unit_where_hidden_sizes_are_equal():
    assert find_groups(ragged(hidden_sizes=[9, 9, 9]), "l") == {Group("l", layer): 1 for layer in range(3)}
    with pytest.raises(ValueError, match=r"hidden sizes of the layers differ: \[37, 31, 43\].*leave l out"):
        find_groups(ragged(), "l")
    only = ragged(hidden_sizes=[9], filter_sizes=[4], head_counts=[1], key_query_sizes=[2], value_sizes=[3])
    assert find_groups(only, "l") == {}
