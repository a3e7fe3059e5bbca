"""Killed at any instant, a run that goes on ends with the plan and the bits of one that was never stopped.

Real processes and real signals. KILL_SEED draws other instants.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from forks import Fork

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "prune_tiny.py"
IN_A_CHECKPOINT = ("writing the optimizer", "writing state.json", "flushing")
INSTANTS = 6
SEED = int(os.environ.get("KILL_SEED", "0"))


def start(folder, method, *options, processes=1):
    """Starts a run that writes into `folder`."""
    folder.mkdir(exist_ok=True)
    return Fork(SCRIPT, folder / "output", method, folder / "result.json", *options, processes=processes)


def run(folder, method, *options, code=0, processes=1):
    """Runs to the end; gives the lines that were printed, and what was said on stderr."""
    ended = start(folder, method, *options, processes=processes).end()
    assert ended.returncode == code, ended.stderr[-3000:]
    return ended.stdout.splitlines(), ended.stderr


def outcome(folder):
    """What a run ended with, and the bytes of every model that it left."""
    report = json.loads((folder / "result.json").read_text())
    del report["events"]
    models = {path.parent.name: path.read_bytes() for path in (folder / "output").glob("*pct/model.safetensors")}
    assert set(models) == {"80pct", "60pct"}
    return report, models


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run for each method, with what it announced."""
    runs = {}
    for method in ("auto", "schubert"):
        folder = tmp_path_factory.mktemp(method)
        runs[method] = folder, run(folder, method)[0]
    return runs


def draw(events, number, rng, wanted=None):
    """Events to die before, e.g. "17 writing weights"; at the last one the result is there, and it clears up."""
    known = [event for event in events[:-1] if wanted is None or event.split(" ", 1)[1] in wanted]
    return rng.sample(known, number)


def test_killed_at_random_instants(whole, tmp_path):
    rng = random.Random(SEED)
    drawn = []
    for method, (_, events) in whole.items():
        inside = draw(events, 1, rng, IN_A_CHECKPOINT)
        drawn += [(method, event) for event in [*inside, *draw(events, INSTANTS // 2 - 1, rng)]]
    assert len(drawn) == INSTANTS
    for method, event in drawn:
        folder = tmp_path / f"{method}-{event.replace(' ', '-')}"
        number = event.split()[0]
        lines, _ = run(folder, method, "--kill", number, code=-9)
        assert lines[-1] == event
        run(folder, method, "--resume")
        assert outcome(folder) == outcome(whole[method][0]), (method, event)
        shutil.rmtree(folder)


def test_killed_again_and_again(whole, tmp_path):
    """A third of the way in every life; it gets there all the same."""
    rng, folder, lives = random.Random(SEED), tmp_path / "run", 0
    while lives < 12:
        ended = start(folder, "schubert", "--kill", str(rng.randint(30, 60)), "--resume").end()
        lives += 1
        if ended.returncode == 0:
            break
        assert ended.returncode == -9
    assert lives > 1
    assert outcome(folder) == outcome(whole["schubert"][0])


def test_killed_by_the_clock(whole, tmp_path):
    """From outside, whatever it is doing."""
    folder = tmp_path / "run"
    started = start(folder, "auto")
    printed = started.files[0]
    while not (printed.exists() and printed.read_text()):
        assert started.poll() is None
        time.sleep(0.01)
    time.sleep(random.Random(SEED).uniform(0.05, 0.5))
    started.send_signal(signal.SIGKILL)
    assert started.end().returncode == -9
    run(folder, "auto", "--resume")
    assert outcome(folder) == outcome(whole["auto"][0])


def test_killed_while_the_learning_rate_is_found(tmp_path):
    """In the second of two rounds: at the fold's first look, the one gradient, a rate, and the best moment."""
    options = ("--recovery-steps", "12", "--save-steps", "100")
    events = run(tmp_path / "whole", "auto", *options)[0]
    folds = [place for place, event in enumerate(events) if event.endswith(" fold")]
    assert len(folds) % 2 == 0
    middle = folds[len(folds) // 2]
    assert events[middle + 1].endswith(" step")
    for place in (middle, middle + 1, middle + 3, next(fold for fold in folds if fold > middle + 12)):
        folder = tmp_path / str(place)
        lines, _ = run(folder, "auto", *options, "--kill", str(place), code=-9)
        assert lines[-1] == events[place]
        run(folder, "auto", *options, "--resume")
        assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_leaves_a_checkpoint_of_the_last_step(whole, tmp_path, name, code):
    folder = tmp_path / "run"
    lines, errors = run(folder, "schubert", "--kill", "4", "--signal", name, "--save-steps", "100", code=code)
    assert lines[4] == "4 step"  # the fourth one, after an evaluation; no checkpoint is due
    assert f"stopped by {name}" in errors
    names = sorted(path.name for path in (folder / "output" / "checkpoints").iterdir())
    assert names == ["round-000-alphas-0000004"]  # the step that was being taken was finished
    run(folder, "schubert", "--resume", "--save-steps", "100")
    assert outcome(folder) == outcome(whole["schubert"][0])


def test_torn_checkpoints_are_skipped_with_a_warning(whole, tmp_path):
    folder = tmp_path / "run"
    events = whole["schubert"][1]
    last = [event for event in events if event.endswith("writing state.json")][4]
    run(folder, "schubert", "--kill", last.split()[0], code=-9)
    newest = sorted((folder / "output" / "checkpoints").glob("[!.]*"))[-1]
    weights = newest / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    _, errors = run(folder, "schubert", "--resume")
    assert f"The checkpoint {newest.name} is damaged and skipped" in errors
    assert "was being written when a run stopped" in errors
    assert outcome(folder) == outcome(whole["schubert"][0])


def test_killed_with_two_processes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, "schubert", processes=2)
    run(killed, "schubert", "--kill", "30", code=-9, processes=2)
    assert not (killed / "result.json").exists()
    run(killed, "schubert", "--resume", processes=2)
    assert outcome(killed) == outcome(whole)
    assert outcome(killed)[0]["processes"] == 2
