"""Plans compete: the one that is carried out is the best of those that were measured, and none is measured in vain."""

from functools import partial

import pytest
import torch
from oracles import batches, build, parameter_cost, ragged

from schubert_hf import SchuBertForMaskedLM, SchuBertForPreTraining, SchuBertForSequenceClassification, compact
from schubert_hf.cost import BudgetError
from schubert_hf.pruning.data import FEW, first_predictions, first_tokens, split
from schubert_hf.pruning.least_squares import RIDGE
from schubert_hf.pruning.methods import Problem, Scored, by_curvature
from schubert_hf.pruning.restoration import restore
from schubert_hf.pruning.search import FITTED, LEAST, MEASURED, Competition
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import EMBEDDINGS, STREAM, Group, find_groups
from schubert_hf.training.objective import Objective, PretrainingObjective, real_tokens
from schubert_hf.training.outputs import Outputs


def compete(model, scores, share=0.8, *, objective=PretrainingObjective, data=8, reduce=None):
    """A competition for a share of the parameters, and the budget's own selection."""
    cost = parameter_cost(model.config, type(model).__name__)
    limit = share * model.num_parameters()
    some = masked(data)
    half = len(some) // 2

    def choose(subset):
        return select(subset, model.config, cost, limit, multiple_of={"f": 2})

    return Competition(Scored(model, scores), objective, choose, some[:half], some[half:], reduce)


def masked(number):
    """Batches with labels for every tenth token."""
    found = []
    for batch in batches(number):
        labels = batch["input_ids"].clone()
        labels[:, 1::3] = -100
        found.append({**batch, "labels": labels, "next_sentence_label": torch.zeros(len(labels), dtype=torch.long)})
    return found


def scores_of(model, dimensions="hfakv", seed=0):
    generator = torch.Generator().manual_seed(seed)
    groups = find_groups(model.config, dimensions)
    return {group: torch.rand(units, generator=generator) for group, units in groups.items()}


@pytest.mark.parametrize("dimensions", ["hfakv", "hfkv", "fakv"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_of_those_that_were_measured_wins(dimensions, seed):
    model = build(SchuBertForPreTraining, ragged(hidden_sizes=[36, 36, 36]))
    rivals = compete(model, scores_of(model, dimensions, seed))
    plan = rivals.run()
    divergences = [one["divergence"] for one in rivals.tried]
    assert len(divergences) == len(set(rivals.known)) >= 2
    assert rivals.known[plan] == min(divergences)
    # Measured again without the library's loop: cut, refit, divergence over the fold.
    cut = restore(compact(model, plan), model, plan, rivals.batches, ridge=RIDGE)
    ours, theirs = PretrainingObjective(cut), PretrainingObjective(model)
    sums, counts = {"mlm": 0.0, "nsp": 0.0}, {"mlm": 0, "nsp": 0}
    with torch.no_grad():
        for batch in rivals.fold:
            own, wanted = ours.predict(batch), theirs.predict(batch)
            for term in sums:
                sums[term] += float(ours.divergence(own.logits[term], wanted.logits[term], 1.0))
                counts[term] += ours.count(batch)[term]
    assert rivals.known[plan] == pytest.approx(sum(sums[term] / counts[term] for term in sums), rel=1e-5)


def test_streams_of_a_fixed_width_lose_the_channels_that_matter_least():
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    scores = scores_of(model, "hfkv")
    rivals = compete(model, scores, 0.85)
    (hidden,) = (score for group, score in scores.items() if group.dimension == "h")
    plan = rivals._plan({"f", "k", "v"}, {Group("h", None): 30})
    assert plan is not None
    assert plan.hidden == tuple(sorted(hidden.argsort()[6:].tolist()))
    assert plan.heads == tuple(tuple(range(heads)) for heads in model.config.head_counts)


def test_plans_that_leave_e_alone_are_scored_without_a_projection():
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    cost, some = parameter_cost(model.config, type(model).__name__), masked(4)

    def scored(projects):
        groups = find_groups(model.config, "hfakv")
        return by_curvature(Problem(model, PretrainingObjective, groups, cost, some, lambda x: x, None, 0, projects))

    def plan(kinds, scored):
        choose = partial(select, config=model.config, cost=cost, budget=0.6 * model.num_parameters())
        return Competition(scored, PretrainingObjective, choose, some[:2], some[2:])._plan(set(kinds), {STREAM: 24})

    own, both = scored(False), scored(True)
    assert own.alone is None
    assert EMBEDDINGS in both.scores
    torch.testing.assert_close(both.alone, own.scores, rtol=1e-9, atol=0)  # as if nothing could be projected
    assert not torch.allclose(both.scores[STREAM], own.scores[STREAM], rtol=1e-2)  # the decoder reads e there
    for kinds in ("fkv", "fakv"):
        assert plan(kinds, both) == plan(kinds, own) != plan(kinds, both._replace(alone=None))


def test_without_a_decoder_a_projection_changes_no_order():
    model = build(SchuBertForSequenceClassification, ragged(hidden_sizes=[36, 36, 36]))
    cost, some = parameter_cost(model.config, type(model).__name__), batches(4)
    make = Outputs().taught_by(model, some[0], temperature=1.0, seed=0)
    groups = find_groups(model.config, "hfakv")
    own, both = (
        by_curvature(Problem(model, make, groups, cost, some, lambda x: x, None, 0, projects))
        for projects in (False, True)
    )
    assert both.alone is None
    ratio = both.scores.pop(STREAM) / own.scores.pop(STREAM)
    torch.testing.assert_close(ratio, ratio[:1].expand(36), rtol=1e-6, atol=0)  # a channel of h costs less there
    for group, scores in own.scores.items():
        torch.testing.assert_close(both.scores[group], scores, rtol=1e-6, atol=0)


def test_kinds_that_cannot_meet_the_budget_are_passed_over():
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    scores = scores_of(model, "hfkv")
    rivals = compete(model, scores, 0.35)
    plan = rivals.run()
    assert rivals._plan({"f", "k", "v"}) is None
    assert max(plan.shape.hidden_sizes) < 36
    with pytest.raises(BudgetError):
        compete(model, scores_of(model, "fkv"), 0.35).run()


@pytest.mark.parametrize(("worse", "tried"), [(1.9, [36, 32, 34]), (2.1, [36, 32])])
def test_half_a_step_is_tried_where_a_whole_one_did_not_lose_too_much(worse, tried):
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    rivals = compete(model, scores_of(model, "hfkv"), 0.85)
    rivals._measure = lambda plan: 1.0 if len(plan.hidden) == 36 else worse
    assert len(rivals.run().hidden) == 36
    assert [one["hidden_size"] for one in rivals.tried[1:]] == tried


@pytest.mark.parametrize(("whole", "again"), [(1.9, [("fakv", 36)]), (2.1, [])])
def test_heads_go_beside_a_whole_stream_too_where_that_is_not_hopeless(whole, again):
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    rivals = compete(model, scores_of(model, "hfakv"), 0.7)
    rivals._measure = lambda plan: whole if len(plan.hidden) == 36 else 1.0 + abs(len(plan.hidden) - 32) / 36
    rivals.run()
    tried = [(one["dimensions"], one["hidden_size"]) for one in rivals.tried]
    assert tried[tried.index(("hfakv", 32)) + 1 :] == again


@pytest.mark.parametrize("dimensions", ["fkv", "h", "a", "ha"])
def test_where_there_is_one_way_nothing_is_measured(dimensions):
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    rivals = compete(model, scores_of(model, dimensions), 0.97)
    assert rivals.run() == rivals.choose(rivals.scores)
    assert rivals.tried == []


def test_an_objective_without_predictions_is_compared_by_its_loss():
    class Plain(Objective):
        terms = ("mlm",)

        def __init__(self, model):
            super().__init__(model)
            self.inner = PretrainingObjective(model)

        def count(self, batch):
            return self.inner.count(batch)

        def forward(self, batch):
            return self.inner(batch)

    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36]))
    rivals = compete(model, scores_of(model), objective=Plain)
    plan = rivals.run()
    cut = Plain(restore(compact(model, plan), model, plan, rivals.batches, ridge=RIDGE))
    with torch.no_grad():
        total = sum(float(cut(batch)["mlm"]) for batch in rivals.fold)
    number = sum(cut.count(batch)["mlm"] for batch in rivals.fold)
    assert rivals.known[plan] == pytest.approx(total / number, rel=1e-5)


@pytest.mark.parametrize(("filters", "fitted"), [(41, LEAST), (600, 600 * FITTED)])
def test_no_more_text_is_used_than_a_choice_needs(filters, fitted):
    model = build(SchuBertForMaskedLM, ragged(hidden_sizes=[36, 36, 36], filter_sizes=[filters, 29, 17]))
    some = masked(1)[0]
    tokens = int(real_tokens(some).sum())
    many = [some] * (2 * MEASURED // tokens)
    rivals = Competition(Scored(model, scores_of(model)), PretrainingObjective, lambda _: None, many, many)
    for used, wanted in ((rivals.batches, fitted), (rivals.fold, MEASURED)):
        assert wanted <= len(used) * tokens < wanted + tokens
    halves = Competition(
        Scored(model, scores_of(model)), PretrainingObjective, lambda _: None, many, many, lambda t: 2 * t
    )
    assert abs(len(halves.fold) - len(rivals.fold) / 2) <= 1


@pytest.mark.parametrize(("number", "rows"), [(0.5, [0]), (3, [0, 2, 5]), (4, [0, 2, 4, 6]), (8, list(range(8)))])
def test_of_a_batch_as_many_examples_are_used_as_are_needed_evenly_spread(number, rows):
    batch = alike(8)
    tokens = batch["input_ids"].shape[1]
    (used,) = first_tokens(int(number * tokens), [batch, batch])
    assert all(torch.equal(used[name], x[rows]) for name, x in batch.items())
    whole, rest = first_tokens(8 * tokens + int(number * tokens), [batch, batch])
    assert torch.equal(whole["input_ids"], batch["input_ids"])
    assert torch.equal(rest["input_ids"], batch["input_ids"][rows])


def test_the_tokens_of_all_processes_count():
    batch = alike(8)
    (used,) = first_tokens(8 * batch["input_ids"].shape[1], [batch], lambda t: 2 * t)
    assert len(used["input_ids"]) == 4


@pytest.mark.parametrize("predictions", [1, FEW // 4])
def test_more_text_is_used_where_little_is_predicted_on_it(predictions):
    class Counting(Objective):
        def count(self, batch):
            return {"loss": predictions * len(batch["input_ids"])}

    batch = alike(8)
    (used,) = first_predictions(4 * batch["input_ids"].shape[1], [batch], Counting(torch.nn.Identity()))
    assert len(used["input_ids"]) == (4 if 4 * predictions >= FEW else 8)


def alike(number):
    """One batch of so many different examples of the same length."""
    numbers = torch.arange(10 * number).view(number, 10)
    return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}


def test_what_is_not_one_item_per_example_is_not_cut_up():
    batch = {**masked(8)[0], "class_weights": torch.rand(3), "scale": torch.tensor(2.0)}
    tokens, size = batch["input_ids"].numel(), len(batch["input_ids"])
    (thinned,) = first_tokens(int(real_tokens(batch).sum()) // 2, [batch, batch])
    pieces = split(tokens // size, [batch], torch.device("cpu"))
    assert len(pieces) == size
    assert torch.equal(torch.cat([piece["input_ids"] for piece in pieces]), batch["input_ids"])
    for part in (thinned, *pieces):
        assert all(torch.equal(part[name], batch[name]) for name in ("class_weights", "scale"))
