"""The recovery finds its rate and keeps its best weights: deterministic, resumable and cheap."""

import json
import logging
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from oracles import documents, make_examples, same_weights, untimed
from watching import WatchedAccelerator, WatchedObjective, dying_at, spoiling

from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.pruning import learning_rate as rates
from schubert_hf.pruning import recovery
from schubert_hf.pruning.learning_rate import FORWARD, Measurement
from schubert_hf.run.checkpoint import newest_checkpoint
from schubert_hf.training.objective import PretrainingObjective

SEARCHED = {"rounds": 1, "recovery_steps": 12, "save_steps": 2}  # long enough for a measurement
LONG = {**SEARCHED, "dimensions": "fakv"}  # one plan, which is found at once


def unmasked(examples):
    """A collator whose labels are the examples themselves."""
    names = ("input_ids", "token_type_ids")
    columns = {name: [torch.tensor(example[name]) for example in examples] for name in names}
    padded = {name: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for name, rows in columns.items()}
    labels = {"labels": padded["input_ids"], "attention_mask": (padded["input_ids"] > 0).long()}
    follows = torch.tensor([example["next_sentence_label"] for example in examples])
    return {**padded, **labels, "next_sentence_label": follows}


def test_the_budget_is_what_is_computed(make_pruner):
    """In examples of forward and backward passes: what a run that is given its rate does not compute."""

    def counted(**options):
        examples = {True: 0, False: 0}

        def read(batch, trained):
            examples[trained] += len(batch["input_ids"])

        make_pruner(objective=lambda model: WatchedObjective(model, read), **LONG, **options).prune()
        return examples

    found, given = counted(), counted(recovery_learning_rate=1e-4)
    trained, evaluated = (found[kind] - given[kind] for kind in (True, False))
    assert trained > 0
    assert evaluated > 0
    assert trained + FORWARD * evaluated <= LONG["recovery_steps"] * 8 / 5


def test_the_rate_stands_in_log_and_record(make_pruner, caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger=recovery.__name__):
        result = make_pruner(output_dir=tmp_path, **LONG).prune()
    (record,) = json.loads((tmp_path / "pruning.json").read_text())["rounds"]
    assert record["learning_rate"] == result.rounds[0].learning_rate > 0
    assert [message for message in caplog.messages if "learning rate" in message] == [
        f"round 1/1 learning rate: {record['learning_rate']:.2g}, found on {Measurement.of(12, 8, 100).fold} "
        "training examples."
    ]
    assert result.config.recovery_learning_rate is None


@pytest.mark.parametrize("rate", [1e-4, 1.0])
def test_a_given_rate_is_taken_and_nothing_is_measured(make_pruner, rate):
    accelerator = WatchedAccelerator()
    (record,) = make_pruner(recovery_learning_rate=rate, accelerator=accelerator, **LONG).prune().rounds
    assert record.learning_rate == rate
    assert [step.number for step in accelerator.steps] == list(range(12))
    assert max(step.rate for step in accelerator.steps) == rate


def test_it_is_deterministic(make_pruner):
    first, second = make_pruner(**SEARCHED).prune(), make_pruner(**SEARCHED).prune()
    assert untimed(first) == untimed(second)
    assert same_weights(first.model, second.model)
    assert untimed(make_pruner(**SEARCHED, seed=1).prune()) != untimed(first)


def test_the_search_leaves_the_weights(make_pruner, tmp_path):
    with pytest.raises(KeyboardInterrupt):  # after the step that the rate is measured with
        make_pruner(output_dir=tmp_path, accelerator=dying_at(1), **LONG).prune()
    before, after = sorted((tmp_path / "checkpoints").iterdir())
    assert (before.name, after.name) == ("round-000-learning-rate-0000000", "round-000-recovery-0000000")
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (before, after)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_training_that_only_hurts_returns_the_cut(make_pruner, method):
    """At an absurd rate the weights right after the cut are the best, and stay."""
    trained = make_pruner(method=method, recovery_learning_rate=1.0, **LONG).prune()
    cut = make_pruner(method=method, **{**LONG, "recovery_steps": 0}).prune()
    assert trained.rounds[0].best_step == 0
    assert trained.rounds[0].after_recovery == trained.rounds[0].after_cut
    assert same_weights(trained.model, cut.model)
    assert cut.rounds[0].best_step is cut.rounds[0].learning_rate is None


def judged(losses, at=lambda _: None):
    """An accelerator, and an objective to which `losses` adds a number after so many steps; not in training."""
    accelerator = WatchedAccelerator(at)

    class Judged(PretrainingObjective):
        def forward(self, batch):
            sums, done = super().forward(batch), accelerator.steps[-1].number + 1 if accelerator.steps else 0
            if not self.training:
                sums["mlm"] = sums["mlm"] + losses.get(done, 0.0) * self.count(batch)["mlm"]
            return sums

    return {"accelerator": accelerator, "objective": Judged}


LOSSES = {0: 50.0, 3: 40.0, 6: 30.0, 9: 40.0, 12: 45.0}


def test_the_best_moment_wins(make_pruner):
    """The weights after step 6 of 12, where the loss on the fold is the lowest."""
    weights = {}

    def keep(step):
        model = watched["accelerator"].objective.model
        weights[step.number] = {name: value.clone() for name, value in model.state_dict().items()}

    watched = judged(LOSSES, keep)
    result = make_pruner(**LONG, recovery_learning_rate=1e-3, **watched).prune()
    assert result.rounds[0].best_step == 6
    assert all(torch.equal(weights[6][name], value) for name, value in result.model.state_dict().items())
    assert any(not torch.equal(weights[11][name], value) for name, value in result.model.state_dict().items())


def test_the_end_is_kept_if_it_gains_enough(make_pruner):
    """Of the gain of step 6, 20, it keeps 10."""
    watched = judged({**LOSSES, 12: 40.0})
    assert make_pruner(**LONG, recovery_learning_rate=1e-3, **watched).prune().rounds[0].best_step == 12


HARMED = {3: 90.0, 6: -1.0, 9: 90.0}  # after these steps; 6 is the best


def test_a_rate_that_is_found_and_harms_is_lowered(make_pruner, caplog):
    """Back to the best weights, at a quarter of the rate; a rate that is given stays."""
    weights, plain = [], WatchedAccelerator()

    def keep(step):
        model = watched["accelerator"].objective.model
        weights.append({name: value.clone() for name, value in model.state_dict().items()})

    watched = judged(HARMED, keep)
    with caplog.at_level(logging.WARNING, logger=recovery.__name__):
        result = make_pruner(**LONG, **watched).prune()
    found = make_pruner(**LONG, accelerator=plain).prune().rounds[0].learning_rate
    after = weights[1:]  # so many steps, each as it is found by the next; the first of all measured the rate
    for step, best in ((3, 0), (9, 6)):
        assert all(torch.equal(after[best][name], value) for name, value in after[step].items())
    factors = [1] * 3 + [1 / 4] * 6 + [1 / 16] * 3
    steps = zip(watched["accelerator"].steps[1:], plain.steps[1:], factors, strict=True)
    assert all(one.rate == pytest.approx(factor * other.rate) for one, other, factor in steps)
    assert result.rounds[0].best_step == 6
    assert result.rounds[0].learning_rate == pytest.approx(found / 16)
    assert [message.rpartition(" at ")[0] for message in caplog.messages if "worse" in message] == [
        f"round 1/1 recovery: step {step} is worse than the cut; it continues from step {best}"
        for step, best in ((3, 0), (9, 6))
    ]
    # Worse than the best by half, as a small fold's noise can be, but not than the cut.
    waned = judged({6: -3.0, 9: 0.0})
    make_pruner(**LONG, **waned).prune()
    assert [step.rate for step in waned["accelerator"].steps] == [step.rate for step in plain.steps]
    given = judged(HARMED)
    make_pruner(**LONG, recovery_learning_rate=1e-3, **given).prune()
    assert given["accelerator"].steps[-1].rate > 1e-3 / 16


def test_a_gradient_that_is_not_finite_is_left_to_the_recovery(make_pruner):
    accelerator = WatchedAccelerator(lambda step: float("nan") if step.taken == 0 else None)
    assert make_pruner(accelerator=accelerator, **LONG).prune().rounds[0].learning_rate == rates.TYPICAL


@pytest.fixture(scope="module", params=[False, True], ids=["examples", "stream"])
def long(request, make_pruner, tokenizer, tmp_path_factory):
    """Makes a pruner with a folder to write into; and what it gives without interruption."""

    def build(folder, **watched):
        corpus = IterableDataset.from_generator(documents, gen_kwargs={"files": [0, 1, 2, 3]})
        train = StreamedPairs(corpus, tokenizer, max_length=20) if request.param else make_examples(300)
        options = {**LONG, "calibration_examples": 16, "save_steps": 4}
        return make_pruner(output_dir=folder, train_dataset=train, **options, **watched)

    return build, build(tmp_path_factory.mktemp("whole")).prune()


@pytest.mark.parametrize("where", ["fold", "gradient", "evaluation", "first", "middle", "last"])
def test_killed_in_it_and_resumed_is_uninterrupted(long, tmp_path, where):
    build, whole = long
    taken = {"gradient": 0, "first": 1, "middle": 8, "last": 12}  # the rate is measured with a step of its own
    accelerator = dying_at(*([taken[where]] if where in taken else []))
    begun = tmp_path / "checkpoints" / "round-000-learning-rate-0000000"

    def read(_, trained):
        if begun.exists() and not trained and len(accelerator.steps) == {"fold": 0, "evaluation": 1}.get(where):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, accelerator=accelerator, objective=lambda model: WatchedObjective(model, read)).prune()
    newest = newest_checkpoint(tmp_path / "checkpoints").name
    steps = {"first": "recovery-0000000", "middle": "recovery-0000004", "last": "recovery-0000008"}
    assert newest == f"round-000-{steps.get(where, 'learning-rate-0000000')}"
    torch.rand(5)
    resumed = build(tmp_path).prune(resume=True)
    assert untimed(resumed) == untimed(whole)
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize(("losses", "rate", "stopped"), [(LOSSES, 1e-3, 9), (HARMED, None, 4), (HARMED, None, 10)])
def test_a_signal_after_the_best_moment_keeps_the_best_weights(make_pruner, tmp_path, losses, rate, stopped):
    """The best weights are in the checkpoint, though those that are trained have gone on, and so is a lower rate."""

    def prune(folder, at=lambda _: None, **options):
        watched = judged(losses, at)
        settings = {"output_dir": tmp_path / folder, "recovery_learning_rate": rate, **LONG}
        return make_pruner(**settings, **watched).prune(**options)

    whole = prune("whole")
    with pytest.raises(KeyboardInterrupt):
        prune("stopped", lambda step: os.kill(os.getpid(), signal.SIGINT) if step.number == stopped else None)
    resumed = prune("stopped", resume=True)
    assert untimed(resumed) == untimed(whole)
    assert whole.rounds[0].best_step == 6
    assert same_weights(resumed.model, whole.model)


def test_half_the_rate_after_a_bad_step_keeps_the_best_weights(make_pruner):
    """Going back to the last good state brings back its best weights too."""
    accelerator = spoiling(1, number=10)
    result = make_pruner(**{**LONG, "save_steps": 7}, recovery_learning_rate=1e-3, accelerator=accelerator).prune()
    assert [step.number for step in accelerator.steps] == [*range(11), *range(7, 12)]
    assert result.rounds[0].halved == ["recovery"]
    assert result.rounds[0].best_step in (0, 3, 6, 9, 12)


def test_the_fold_is_not_trained_on(make_pruner):
    """Not even where the examples are so few that they come again."""
    trained, evaluated, accelerator = [], [], WatchedAccelerator()

    def ids(batch):
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [tuple(row[mask.bool()].tolist()) for row, mask in rows]

    def read(batch, trains):
        if accelerator.steps:  # the cut has been made, and the rate measured
            (trained if trains else evaluated).extend(ids(batch))

    pruner = make_pruner(
        train_dataset=make_examples(40),
        eval_dataset=make_examples(9, seed=7),
        data_collator=unmasked,
        objective=lambda model: WatchedObjective(model, read),
        accelerator=accelerator,
        **LONG,
    )
    pruner.prune()
    held_out = set(ids(unmasked(make_examples(9, seed=7))))
    fold = set(evaluated) - held_out
    assert len(fold) == Measurement.of(12, 8, 40).fold
    assert len(trained) > 80
    assert not fold & set(trained)


def test_the_evaluation_set_chooses_nothing(make_pruner):
    """Whatever is held out, the rate, the moment and the weights are the same."""
    one = make_pruner(**SEARCHED).prune()
    other = make_pruner(**SEARCHED, eval_dataset=make_examples(9, seed=7)).prune()
    assert same_weights(one.model, other.model)
    assert one.rounds[0].learning_rate == other.rounds[0].learning_rate
    assert one.rounds[0].best_step == other.rounds[0].best_step
    assert one.rounds[0].after_recovery != other.rounds[0].after_recovery


def test_accumulation_measures_the_same(make_pruner):
    whole = make_pruner(**LONG).prune().rounds[0]
    for options in ({"micro_batch_size": 2}, {"accelerator": Accelerator(cpu=True, gradient_accumulation_steps=4)}):
        parts = make_pruner(**LONG, **options).prune().rounds[0]
        assert parts.learning_rate == pytest.approx(whole.learning_rate, rel=0.02)
        assert parts.best_step == whole.best_step
