import json

import pytest
import torch
from hypothesis import given, settings
from oracles import cuts, plan_without, ragged

from schubert_hf import PruningPlan
from schubert_hf.anatomy import Axis
from schubert_hf.pruning.plan import PlanError, kept_after
from schubert_hf.pruning.units import Group
from schubert_hf.shape import Shape

SOURCE = Shape.of(ragged())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(cuts(ragged()))
def test_json_gives_the_plan_back(removed):
    plan = plan_without(ragged(), removed)
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_shape_and_indices():
    plan = PruningPlan.from_kept(
        SOURCE,
        {
            Group("h", None): (33, 2, 30, 42),  # sorted by the plan
            Group("f", 1): (),
            Group("a", 0): (0, 2),
            Group("k", 0): (1, 4),
            Group("a", 2): (),
        },
    )
    assert plan.hidden == (2, 30, 33, 42)
    assert plan.shape == Shape((3, 2, 4), (41, 0, 53), (2, 2, 0), (2, 7, 3), (9, 4, 13))
    assert plan.kept(Axis("hidden", -1)).tolist() == [2, 30, 33, 42]
    assert plan.kept(Axis("hidden", 1)).tolist() == [2, 30]
    assert plan.kept(Axis("key_query", 0)).tolist() == [1, 4, 11, 14]
    assert plan.kept(Axis("value", 0)).tolist() == [*range(9), *range(18, 27)]
    assert plan.kept(Axis("filter", 1)).dtype == torch.long
    assert PruningPlan.from_kept(SOURCE, {}).shape == SOURCE


def test_layers():
    source = Shape.of(ragged(hidden_sizes=[5, 5, 5]))
    plan = PruningPlan.from_kept(source, {Group("l", 1): (), Group("f", 2): (7, 1)})
    assert plan.layers == (0, 2)
    assert plan.shape == Shape((5, 5), (41, 2), (3, 1), (5, 3), (9, 13))
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    older = PruningPlan.from_kept(source, {}).to_json()
    del older["layers"]
    assert PruningPlan.from_json(older).layers == (0, 1, 2)


def test_some_layer_stays():
    source = Shape.of(ragged(hidden_sizes=[5, 5, 5]))
    with pytest.raises(PlanError, match="keeps no layer"):
        PruningPlan.from_kept(source, {Group("l", layer): () for layer in range(3)})


def test_layers_of_other_widths_do_not_go():
    with pytest.raises(PlanError, match=r"drops some of a model whose hidden sizes differ: \(37, 31, 43\)"):
        PruningPlan.from_kept(SOURCE, {Group("l", 0): ()})


def test_what_is_left_after_several_plans_in_the_first_ones_numbers():
    source = Shape.of(ragged(hidden_sizes=[5, 5, 5]))
    first = PruningPlan.from_kept(source, {Group("h", None): (0, 2, 3, 4), Group("l", 0): ()})
    second = PruningPlan.from_kept(first.shape, {Group("h", None): (1, 3), Group("l", 1): ()})
    assert kept_after([first, second], "hidden") == (2, 4)
    assert kept_after([first, second], "layers") == (1,)
    assert kept_after([first], "layers") == (1, 2)


def change(path, value):
    """The JSON of a plan that keeps everything, with one value replaced or, if it is None, removed."""
    plan = PruningPlan.from_kept(SOURCE, {}).to_json()
    *parents, last = path
    place = plan
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return plan


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["hidden"], None, "no pruning plan: KeyError"),
        (["source"], None, "no pruning plan: KeyError"),
        (["source"], [1, 2], "no pruning plan: TypeError"),
        (["source", "head_counts"], None, "no pruning plan: KeyError"),
        (["source", "head_counts"], [3, 2], "`source.head_counts` is .3, 2.; give one int per layer"),
        (["source", "filter_sizes", 0], 41.0, "`source.filter_sizes`"),
        (["source", "filter_sizes", 0], -1, "`source.filter_sizes`"),
        (["hidden"], 7, "no pruning plan: TypeError"),
        (["hidden"], [], "keeps no channel of the narrowest layer, which has 31"),
        (["hidden"], [31, 40], "keeps no channel of the narrowest layer, which has 31"),
        (["hidden"], [0, 43], "`hidden` has indices from 0 to 43; allowed is 0 to 42"),
        (["filters"], [[0], [0]], "`filters` describes 2 layers, the model has 3"),
        (["filters", 0], [1, 1], r"`filters\[0\]` is \(1, 1\); give sorted, distinct ints"),
        (["filters", 0], [2, 1], "give sorted, distinct ints"),
        (["filters", 0], [True], "give sorted, distinct ints"),
        (["filters", 0], [1.0], "give sorted, distinct ints"),
        (["filters", 2], [-1], r"`filters\[2\]` has indices from -1"),
        (["heads", 0], [0, 1, 2, 3], "allowed is 0 to 2"),
        (["heads", 0], [0], "for 1 kept heads"),
        (["key_query", 1, 0], [0], "every kept head of a layer keeps the same number"),
        (["key_query", 0], [[], [], []], "keeps nothing of a head that stays"),
        (["value", 2, 0], [13], "allowed is 0 to 12"),
    ],
)
def test_malformed_plans_are_refused(path, value, message):
    with pytest.raises(PlanError, match=message):
        PruningPlan.from_json(change(path, value))


def test_a_plan_is_for_one_shape():
    plan = PruningPlan.from_kept(SOURCE, {})
    plan.check_source(ragged())
    with pytest.raises(PlanError, match="other `head_counts`, `value_sizes`"):
        plan.check_source(ragged(head_counts=[3, 2, 2], value_sizes=[9, 4, 12]))
