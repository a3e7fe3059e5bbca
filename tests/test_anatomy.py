"""The table describes every tensor; nobody else names a submodule; a new head is one row."""

import ast
import re
from pathlib import Path

import pytest
import torch
from oracles import CLASSES, batches, build, plan_without, ragged

import schubert_hf
from schubert_hf import SchuBertModel, SchuBertPreTrainedModel, anatomy, compact
from schubert_hf.anatomy import Axis, Row, UnknownTensorError, axis_width, place, place_of_tensor
from schubert_hf.cost import ParameterCost
from schubert_hf.pruning.curvature import curvature_importance
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.surgery import check_tensors
from schubert_hf.pruning.units import Group, check_dimensions, find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import Objective, inputs_of, real_tokens


@pytest.mark.parametrize("kind", CLASSES)
def test_the_table_describes_every_tensor_of_every_class(kind):
    check_tensors(build(kind))
    check_tensors(build(kind, ragged(head_counts=[0, 2, 1], filter_sizes=[41, 0, 53], tie_word_embeddings=False)))
    check_tensors(build(kind, ragged(embedding_size=19)))


def test_axes():
    assert place_of_tensor("bert.encoder.layer.1.attention.output.dense.weight").axes(2) == (
        Axis("hidden", 1),
        Axis("value", 1),
    )
    assert place_of_tensor("encoder.layer.11.intermediate.dense.bias").axes(1) == (Axis("filter", 11),)
    assert place_of_tensor("bert.embeddings.word_embeddings.weight").axes(2) == (None, Axis("embedding", -1))
    assert place_of_tensor("bert.embeddings_project.weight").axes(2) == (Axis("hidden", 0), Axis("embedding", -1))
    transform = place_of_tensor("cls.predictions.transform.dense.weight").axes(2)
    assert transform == (Axis("embedding", -1), Axis("hidden", -1))
    assert [axis_width(ragged(embedding_size=size), Axis("embedding", -1)) for size in (None, 19)] == [37, 19]
    assert place_of_tensor("cls.predictions.bias").axes(1) == (None,)


@pytest.mark.parametrize(("size", "number"), [(None, 3 * 6), (19, 3 * 6 + 1)])
def test_only_the_six_matrices_and_the_projection_are_gated(size, number):
    model = build(CLASSES[1], ragged(embedding_size=size))
    gated = {name for name, _ in model.named_modules() if isinstance(_, torch.nn.Linear) and place(name).row.gated}
    assert len(gated) == number


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


# Names of submodules that mean nothing else, as attributes and in strings.
ATTRIBUTES = {
    *(
        "embeddings",
        "encoder",
        "intermediate",
        "LayerNorm",
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
    ),
    *("predictions", "seq_relationship", "classifier", "qa_outputs", "transform_act_fn", "intermediate_act_fn"),
}
STRINGS = re.compile(
    r"encoder\.layer|attention\.(self|output)|intermediate\.dense|^LayerNorm$|word_embeddings|cls\.|seq_relationship"
    r"|classifier\.|qa_outputs|pooler\.dense"
)
HOME = Path(schubert_hf.__file__).parent
KNOW = {"anatomy.py", "heads.py", "conversion.py", "modeling_schubert.py", "configuration_schubert.py"}


def submodules_named(source):
    """Lines of a module's code, docstrings left out, that name a submodule of the model."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ATTRIBUTES
            and ast.unparse(node.value) not in ("nn", "self")
        ):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Constant) and id(node) not in docstrings and STRINGS.search(str(node.value)):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda path: path.relative_to(HOME).as_posix())
def test_no_other_file_names_a_submodule(path):
    if path.name not in KNOW and path.parent.name not in ("encoders", "families"):  # they name modules of others
        assert not list(submodules_named(path.read_text(encoding="utf-8")))


def test_that_test_sees_what_it_should():
    assert list(submodules_named("model.base_model.encoder.layer[0]"))
    assert list(submodules_named("x = getattr(model, 'qa_outputs')"))
    assert not list(submodules_named("norm = nn.LayerNorm(3)"))


class WithSpans(SchuBertPreTrainedModel):
    """A head that nobody knows: five numbers for each token."""

    def __init__(self, config):
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=False)
        self.spans = torch.nn.Linear(config.hidden_sizes[-1], 5)
        self.post_init()

    def forward(self, labels=None, **inputs):
        return self.spans(self.bert(**inputs).last_hidden_state)  # (batch, seq, 5)


class SpansObjective(Objective):
    terms = ("spans",)

    def count(self, batch):
        return {"spans": int(real_tokens(batch).sum())}

    def forward(self, batch):
        logits = self.model(**inputs_of(batch))[real_tokens(batch)]  # (tokens, 5)
        return {
            "spans": torch.nn.functional.cross_entropy(logits, batch["labels"][real_tokens(batch)], reduction="sum")
        }


@pytest.fixture
def spans(monkeypatch):
    """A model with that head, which one row makes known."""
    row = Row("head", r"spans", None, "hidden", reads="stream")
    monkeypatch.setattr(anatomy, "TABLE", (*anatomy.TABLE, row))
    model = build(WithSpans, ragged(hidden_sizes=[36, 36, 36]))
    with torch.no_grad():  # a channel that the head alone reads
        for layer in anatomy.layers(model):
            for linear in [*layer.attention.inputs.values(), *layer.filters.inputs.values()]:
                linear.weight[:, 7] = 0
    return model


def test_without_a_row_a_head_is_refused():
    with pytest.raises(UnknownTensorError, match=r"`spans` is not a module of SchuBERT"):
        check_tensors(build(WithSpans))


def test_a_made_up_head_is_counted_scored_cut_and_refit(spans):
    data = batches(30)
    for batch in data:
        batch["labels"] = torch.randint(0, 5, batch["input_ids"].shape)
    check_tensors(spans)
    cost = ParameterCost(spans)
    assert cost(Shape.of(spans.config)) == spans.num_parameters()

    scores = curvature_importance(SpansObjective(spans), find_groups(spans.config, "h"), cost, data)
    assert scores[Group("h", None)][7] > 0

    plan = plan_without(spans.config, {Group("h", None): [1, 20], Group("f", 0): list(range(9))})
    cut = compact(spans, plan)
    assert cut.spans.weight.shape == (5, 34)
    assert cost(plan.shape) == cut.num_parameters()

    def distance(model):
        with torch.no_grad():
            return sum(float((model(**inputs_of(b)) - spans(**inputs_of(b))).square().mean()) for b in data)

    parts = ("outputs", "heads", "filters", "norms")
    encoder_alone = restore(compact(spans, plan), spans, plan, data, parts=parts)
    refit = restore(compact(spans, plan), spans, plan, data)
    assert torch.equal(encoder_alone.spans.weight, cut.spans.weight)
    assert distance(refit) < distance(encoder_alone) < distance(cut)
