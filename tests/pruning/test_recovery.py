"""The recovery finds its rate and keeps its best weights: deterministic, resumable and cheap."""

import json
import logging
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from oracles import documents, make_examples

from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.pruning import learning_rate as rates
from schubert_hf.pruning import recovery as module
from schubert_hf.pruning.learning_rate import FORWARD, MEASURED, Measurement, best_first_step
from schubert_hf.pruning.recovery import Recovery
from schubert_hf.run.checkpoint import newest_checkpoint
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.step import NonFiniteLossError

LONG = {"rounds": 1, "recovery_steps": 12, "save_steps": 2}  # long enough for a measurement


def same_weights(ours, theirs):
    theirs = theirs.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


def untimed(result):
    return [{**record.to_json(), "seconds": None} for record in result.rounds]


@pytest.mark.parametrize("best", [1e-6, 4e-5, 1e-4, 7e-4, 1.0])
def test_the_lowest_loss_is_found_where_there_is_one_minimum(best):
    asked = []

    def loss_at(rate):
        asked.append(rate)
        return float((torch.tensor(rate).log() - torch.tensor(best).log()) ** 2)

    found = best_first_step(loss_at, 4)
    expected = min(max(best, MEASURED[0]), MEASURED[-1])
    assert found == pytest.approx(expected, rel=0.1)
    assert len(asked) == len(set(asked)) <= 4


def test_the_measurement_is_drawn_towards_a_typical_rate():
    high, low = (rates.find_learning_rate(lambda rate, best=best: abs(rate - best), 4) for best in (1.0, 0.0))
    assert 5e-4 < high < MEASURED[-1]
    assert MEASURED[0] < low < 5e-5
    following = rates.find_learning_rate(lambda rate: rate, 4, follows_dense=True)
    assert low < following < rates.TYPICAL_FOLLOWING  # which counts more than the measurement
    middle = rates.find_learning_rate(lambda rate: abs(rate - rates.TYPICAL) ** 0.5, 4)
    assert middle == pytest.approx(rates.TYPICAL, rel=0.3)


def test_a_rate_that_diverges_is_no_error_but_the_worst():
    found = best_first_step(lambda rate: float("inf") if rate > 5e-5 else rate, 4)
    assert found == MEASURED[0]


@pytest.mark.parametrize("steps", [1, 7, 8, 20, 60, 300, 3000])
@pytest.mark.parametrize("batch_size", [1, 8, 32, 256])
def test_a_measurement_takes_at_most_a_fifth(steps, batch_size):
    measurement = Measurement.of(steps, batch_size)
    assert measurement.cost <= steps * batch_size / 5
    assert measurement.gradient % batch_size == 0
    assert bool(measurement.gradient) == bool(measurement.evaluations)
    if steps >= 10 and batch_size > 1:
        assert measurement.gradient
    # Together with its three evaluations in the recovery and one before, where that is not tiny.
    if steps * batch_size >= 320:
        assert 4 * measurement.fold * FORWARD <= 0.07 * steps * batch_size


def test_the_budget_is_what_is_computed(make_pruner, monkeypatch):
    """Counted in examples of forward and backward passes, in the run itself."""
    trained, evaluated, found = [], [], Recovery._find_rate
    step, loss = TrainingLoop._train_step, module.mean_loss
    count = lambda batches: sum(len(batch["input_ids"]) for batch in batches)  # noqa: E731

    def measured(self, *args):
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "_train_step", lambda s, b: (trained.append(count(b)), step(s, b))[1])
            patch.setattr(module, "mean_loss", lambda a, o, b: (evaluated.append(count(b)), loss(a, o, b))[1])
            return found(self, *args)

    monkeypatch.setattr(Recovery, "_find_rate", measured)
    make_pruner(**LONG).prune()
    assert len(trained) == 1
    assert len(evaluated) > 1
    assert sum(trained) + FORWARD * sum(evaluated) <= LONG["recovery_steps"] * 8 / 5


def test_the_rate_stands_in_log_and_record(make_pruner, caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger=module.__name__):
        result = make_pruner(output_dir=tmp_path, **LONG).prune()
    (record,) = json.loads((tmp_path / "pruning.json").read_text())["rounds"]
    assert record["learning_rate"] == result.rounds[0].learning_rate > 0
    assert [message for message in caplog.messages if "learning rate" in message] == [
        f"round 1/1 learning rate: {record['learning_rate']:.2g}, found on {Measurement.of(12, 8, 100).fold} "
        "training examples."
    ]
    assert result.config.recovery_learning_rate is None


@pytest.mark.parametrize("rate", [1e-4, 1.0])
def test_a_given_rate_is_taken_and_nothing_is_measured(make_pruner, monkeypatch, rate):
    monkeypatch.setattr(module, "find_learning_rate", None)
    peaks, step = [], TrainingLoop._train_step
    monkeypatch.setattr(
        TrainingLoop, "_train_step", lambda s, b: (peaks.append(s.config.learning_rate), step(s, b))[1]
    )
    (record,) = make_pruner(recovery_learning_rate=rate, **LONG).prune().rounds
    assert record.learning_rate == rate
    assert peaks == [rate] * 12


def test_it_is_deterministic(make_pruner):
    first, second = make_pruner(**LONG).prune(), make_pruner(**LONG).prune()
    assert untimed(first) == untimed(second)
    assert same_weights(first.model, second.model)
    assert untimed(make_pruner(**LONG, seed=1).prune()) != untimed(first)


def test_the_search_leaves_the_weights(make_pruner, monkeypatch):
    pruner, found, seen = make_pruner(**LONG), Recovery._find_rate, []

    def compared(self, objective, own, *args):
        before = {name: value.clone() for name, value in own.model.state_dict().items()}
        result = found(self, objective, own, *args)
        seen.extend(torch.equal(before[name], value) for name, value in own.model.state_dict().items())
        return result

    monkeypatch.setattr(Recovery, "_find_rate", compared)
    pruner.prune()
    assert seen
    assert all(seen)


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_training_that_only_hurts_returns_the_cut(make_pruner, method):
    """At an absurd rate the weights right after the cut are the best, and stay."""
    trained = make_pruner(method=method, recovery_learning_rate=1.0, **LONG).prune()
    cut = make_pruner(method=method, **{**LONG, "recovery_steps": 0}).prune()
    assert trained.rounds[0].best_step == 0
    assert trained.rounds[0].after_recovery == trained.rounds[0].after_cut
    assert same_weights(trained.model, cut.model)
    assert cut.rounds[0].best_step is cut.rounds[0].learning_rate is None


def test_the_best_moment_wins(make_pruner, monkeypatch):
    """The weights after step 6 of 12, where the fold's loss is the lowest."""
    losses = iter([5.0, 3.0, 4.0, 4.5])
    options = {**LONG, "recovery_learning_rate": 1e-3}
    weights = []

    def loss(accelerator, own, fold):
        weights.append({name: value.clone() for name, value in own.model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(module, "mean_loss", loss)
    result = make_pruner(**options).prune()
    assert len(weights) == 4
    assert result.rounds[0].best_step == 6
    assert all(torch.equal(weights[1][name], value) for name, value in result.model.state_dict().items())
    assert any(not torch.equal(weights[3][name], value) for name, value in result.model.state_dict().items())


def test_a_gradient_that_is_not_finite_is_left_to_the_recovery(make_pruner, monkeypatch):
    step = TrainingLoop._train_step

    def bad(loop, batches):
        if loop.config.steps == 1:
            raise NonFiniteLossError("nan")
        return step(loop, batches)

    monkeypatch.setattr(TrainingLoop, "_train_step", bad)
    assert make_pruner(**LONG).prune().rounds[0].learning_rate == rates.TYPICAL


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["fold", "gradient", "evaluation", "first", "middle", "last"])
def test_killed_in_it_and_resumed_is_uninterrupted(make_pruner, tokenizer, tmp_path, monkeypatch, where, streamed):
    def build(folder):
        corpus = IterableDataset.from_generator(documents, gen_kwargs={"files": [0, 1, 2, 3]})
        train = StreamedPairs(corpus, tokenizer, max_length=20) if streamed else make_examples(300)
        options = {**LONG, "calibration_examples": 16, "save_steps": 4}
        return make_pruner(output_dir=tmp_path / folder, train_dataset=train, **options)

    whole = build("whole").prune()
    with monkeypatch.context() as patch:
        calls = []

        def die(function, when):
            def called(*args):
                calls.append(when(*args))
                if calls[-1]:
                    raise KeyboardInterrupt
                return function(*args)

            return called

        at = {"first": 0, "middle": 7, "last": 11}
        if where == "fold":
            patch.setattr(Recovery, "_read_fold", die(Recovery._read_fold, lambda *_: True))
        elif where == "evaluation":
            patch.setattr(module, "mean_loss", die(module.mean_loss, lambda *_: len(calls) == 2))
        else:
            wanted = (1, 0) if where == "gradient" else (12, at[where])
            when = lambda loop, _: (loop.config.steps, loop.step) == wanted  # noqa: E731
            patch.setattr(TrainingLoop, "_train_step", die(TrainingLoop._train_step, when))
        with pytest.raises(KeyboardInterrupt):
            build("resumed").prune()
    newest = newest_checkpoint(tmp_path / "resumed" / "checkpoints").name
    steps = {"first": "recovery-0000000", "middle": "recovery-0000004", "last": "recovery-0000008"}
    assert newest == f"round-000-{steps.get(where, 'learning-rate-0000000')}"
    torch.rand(5)
    resumed = build("resumed").prune(resume=True)
    assert untimed(resumed) == untimed(whole)
    assert same_weights(resumed.model, whole.model)


def test_a_signal_after_the_best_moment_keeps_the_best_weights(make_pruner, tmp_path, monkeypatch):
    """The best weights are in the checkpoint, though those that are trained have gone on."""
    losses = {0: 5.0, 6: 3.0, 9: 4.0, 12: 4.5}

    def build(folder):
        return make_pruner(output_dir=tmp_path / folder, recovery_learning_rate=1e-3, **LONG)

    def loss(pruner):
        return lambda *_: losses[pruner.phases.step if pruner.phases.phase == "recovery" else 0]

    def prune(folder, **options):
        pruner = build(folder)
        monkeypatch.setattr(module, "mean_loss", loss(pruner))
        return pruner.prune(**options)

    whole, step = prune("whole"), TrainingLoop._train_step
    with monkeypatch.context() as patch:

        def interrupted(loop, batches):
            if loop.step == 9:
                os.kill(os.getpid(), signal.SIGINT)
            return step(loop, batches)

        patch.setattr(TrainingLoop, "_train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune("stopped")
    resumed = prune("stopped", resume=True)
    assert resumed.rounds[0].best_step == whole.rounds[0].best_step == 6
    assert same_weights(resumed.model, whole.model)


def test_half_the_rate_after_a_bad_step_keeps_the_best_weights(make_pruner, monkeypatch):
    """Going back to the last good state brings back its best weights too."""
    backward, spoiled = TrainingLoop._backward, []

    def spoil(loop, batches, counts):
        sums, penalty = backward(loop, batches, counts)
        if loop.config.steps == 12 and loop.step == 10 and not spoiled:
            spoiled.append(loop.step)
            sums = {name: value * float("nan") for name, value in sums.items()}
        return sums, penalty

    monkeypatch.setattr(TrainingLoop, "_backward", spoil)
    result = make_pruner(**{**LONG, "save_steps": 7}, recovery_learning_rate=1e-3).prune()
    assert spoiled
    assert result.rounds[0].halved == ["recovery"]
    assert result.rounds[0].best_step in (0, 6, 9, 12)


def test_the_fold_is_not_trained_on(make_pruner, monkeypatch):
    """Not even where the examples are so few that they come again."""
    seen, folds, step, read = [], [], TrainingLoop._train_step, Recovery._read_fold

    def ids(batches):
        return [
            tuple(row[mask.bool()].tolist())
            for b in batches
            for row, mask in zip(b["labels"], b["attention_mask"], strict=True)
        ]

    class Plain:
        """Labels that are the example itself."""

        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

        def __call__(self, examples):
            rows = [torch.tensor(example["input_ids"]) for example in examples]
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            kinds = [torch.tensor(example["token_type_ids"]) for example in examples]
            return {
                "input_ids": padded,
                "attention_mask": (padded > 0).long(),
                "token_type_ids": torch.nn.utils.rnn.pad_sequence(kinds, batch_first=True),
                "labels": padded,
                "next_sentence_label": torch.tensor([example["next_sentence_label"] for example in examples]),
            }

    monkeypatch.setattr(TrainingLoop, "_train_step", lambda s, b: (seen.extend(ids(b)), step(s, b))[1])
    monkeypatch.setattr(Recovery, "_read_fold", lambda s, p: (folds.append(read(s, p)), folds[-1])[1])
    pruner = make_pruner(train_dataset=make_examples(40), **LONG)
    plain = make_pruner(train_dataset=make_examples(40), data_collator=Plain(pruner.tokenizer), **LONG)
    plain.prune()
    fold = set(ids(folds[0]))
    assert len(fold) == Measurement.of(12, 8, 40).fold
    assert len(seen) > 80
    assert not fold & set(seen)


def test_the_evaluation_set_chooses_nothing(make_pruner):
    """Whatever is held out, the rate, the moment and the weights are the same."""
    one = make_pruner(**LONG).prune()
    other = make_pruner(**LONG, eval_dataset=make_examples(9, seed=7)).prune()
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
