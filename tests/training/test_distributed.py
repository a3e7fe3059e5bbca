"""Two processes train and evaluate as one does, and stop together."""

import json
from typing import Any

import pytest
from forks import run

pytestmark = pytest.mark.slow

# Run twice: as one process, and as two with the same global batch. Each writes what it computed.
SCRIPT = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.run.interrupt import Interrupted, InterruptGuard
from schubert_hf.training.evaluate import evaluate
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import LoopConfig, LoopConfigError
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.data.stream import ExampleStream

rng = torch.Generator().manual_seed(0)
def example(number):
    length = 6 + number % 5  # of different lengths, with different numbers of masked tokens
    ids = torch.randint(5, 40, (length,), generator=rng).tolist()
    labels = [token if place % (2 + number % 3) == 0 else -100 for place, token in enumerate(ids)]
    return {"input_ids": ids, "labels": labels, "next_sentence_label": number % 2}
def collate(rows):
    pad = lambda name, value: torch.tensor([row[name] + [value] * (10 - len(row[name])) for row in rows])
    ids = pad("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": pad("labels", -100),
            "next_sentence_label": torch.tensor([row["next_sentence_label"] for row in rows])}

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
objective = PretrainingObjective(SchuBertForPreTraining(SchuBertConfig(
    hidden_sizes=[12, 10], filter_sizes=[14, 18], head_counts=[3, 2], key_query_sizes=[5, 4], value_sizes=[3, 6],
    vocab_size=40, max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)))
stream = ExampleStream([example(number) for number in range(21)], seed=0)
word = objective.model.get_input_embeddings().weight
loop = TrainingLoop(
    accelerator, objective, objective.model.named_parameters(),
    LoopConfig(steps=3, batch_size=8, micro_batch_size=2, learning_rate=1e-2),
    penalty=lambda: 0.01 * word.abs().sum(),
)
results = loop.run(stream, collate)
weights = torch.cat([value.detach().flatten() for value in loop.parameters])
held_out = evaluate(accelerator, objective, ExampleStream(stream.examples, shuffle=False), collate, batch_size=4)
try:
    TrainingLoop(accelerator, objective, objective.model.named_parameters(), LoopConfig(steps=1, batch_size=7))
    refused = ""
except LoopConfigError as error:
    refused = str(error)
with InterruptGuard(accelerator) as guard:
    guard.check()
    if accelerator.is_main_process:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        guard.check()
        stopped = 0
    except Interrupted as stop:
        stopped = stop.exit_code
with open(f"{sys.argv[1]}.{accelerator.process_index}", "w") as stream:
    json.dump({
        "processes": accelerator.num_processes, "weights": weights.tolist(), "held_out": held_out,
        "losses": [result.losses for result in results], "norms": [result.grad_norm for result in results],
        "accuracies": [result.accuracies for result in results], "penalties": [result.penalty for result in results],
        "refused": refused, "stopped": stopped,
    }, stream)
accelerator.end_training()
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script wrote: alone, and as each of two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {"ACCELERATE_USE_CPU": "true"}
    errors = {
        name: run(script, folder / name, processes=processes, environment=environment).stderr
        for name, processes in {"one": 1, "two": 2}.items()
    }
    wrote = {}
    for name in ("one.0", "two.0", "two.1"):
        # A finished gloo run sometimes aborts at the interpreter's exit: what it wrote counts.
        assert (folder / name).exists(), errors[name.split(".")[0]]
        wrote[name] = json.loads((folder / name).read_text())
    return wrote


def test_there_are_two_processes(outcomes: dict[str, Any]) -> None:
    assert [outcome["processes"] for outcome in outcomes.values()] == [1, 2, 2]


def test_steps_are_the_same(outcomes: dict[str, Any]) -> None:
    one, two, other = outcomes.values()
    assert two["weights"] == other["weights"]
    assert two["weights"] == pytest.approx(one["weights"], abs=2e-6)
    for name in ("losses", "norms", "accuracies", "penalties"):
        assert two[name] == other[name]
        for step, expected in enumerate(one[name]):
            assert two[name][step] == pytest.approx(expected, rel=1e-5)


def test_evaluation_is_the_same(outcomes: dict[str, Any]) -> None:
    one, two, other = outcomes.values()
    assert two["held_out"] == other["held_out"]
    assert two["held_out"] == pytest.approx(one["held_out"], rel=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused(outcomes: dict[str, Any]) -> None:
    one, two, other = outcomes.values()
    assert one["refused"] == ""
    assert "7 examples per step over 2 processes" in two["refused"]
    assert two["refused"] == other["refused"]


def test_one_signal_stops_both(outcomes: dict[str, Any]) -> None:
    assert [outcome["stopped"] for outcome in outcomes.values()] == [143, 143, 143]
