"""Publishes and inspects on request, in a process of its own: the client reads HF_ENDPOINT when it is imported.

A line of JSON in, [function, arguments, keyword arguments]; one out, {"value": ...} or {"error": [class, message]}.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # nothing else may come between the answers
real_sleep, slept = time.sleep, []
time.sleep = lambda seconds: (slept.append(seconds), real_sleep(min(seconds, 0.01)))[0]

from transformers import AutoModelForMaskedLM, AutoTokenizer  # noqa: E402

from schubert_hf import SchuBertForMaskedLM, auto_map, commands, hub, load  # noqa: E402
from schubert_hf.conversion import load_for_pretraining  # noqa: E402
from schubert_hf.pruning.result import PruningResult, RoundRecord  # noqa: E402
from schubert_hf.shape import Shape  # noqa: E402


def publish(*arguments, token=None, **kwargs):
    if token is not None:
        os.environ["HF_TOKEN"] = token
    try:
        return asdict(hub.publish(*arguments, latency=False, **kwargs))
    finally:
        os.environ["HF_TOKEN"] = "hf_secret"


def publish_model(folder, name, **kwargs):
    """From memory: later saves of that model must not have an `auto_map`."""
    model = AutoModelForMaskedLM.from_pretrained(folder)
    done = publish(model, name, **kwargs)
    assert "auto_map" not in model.config.to_dict()
    return done


def push_while_saving(folder, name):
    """`save_pretrained(push_to_hub=True)` of a model whose config names the two files."""
    model = AutoModelForMaskedLM.from_pretrained(folder)
    model.config.auto_map = auto_map()
    model.save_pretrained(f"{folder}-again", push_to_hub=True, repo_id=name)


def push_result(folder, name):
    """What the pruner gives, with nothing on disk."""
    run = json.loads((Path(folder) / "pruning.json").read_text())
    result = PruningResult(
        model=AutoModelForMaskedLM.from_pretrained(folder),
        source=Shape.from_json(run["source"]),
        rounds=tuple(RoundRecord.from_json(record) for record in run["rounds"]),
        plans=(),
        unit=run["unit"],
        output_dir=None,
        provenance=run["provenance"],
    )
    return asdict(result.push_to_hub(name, latency=False, tokenizer=AutoTokenizer.from_pretrained(folder)))


def without_token(*arguments):
    token = os.environ.pop("HF_TOKEN")
    try:
        return publish(*arguments)
    finally:
        os.environ["HF_TOKEN"] = token


def inspect(name, **kwargs):
    return hub.inspect(name, **kwargs).to_json()


def open_model(how, name):
    openers = {"load": load, "pretraining": load_for_pretraining, "class": SchuBertForMaskedLM.from_pretrained}
    return type(openers[how](name)).__name__


def command(*words):
    out = Path(os.environ["HF_HOME"]) / "out.txt"
    with out.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            commands.main(words)
        except SystemExit as end:
            return [end.code, out.read_text()]
    return [0, out.read_text()]


CALLS = (publish, publish_model, push_while_saving, push_result, without_token, inspect, open_model, command)
FUNCTIONS = {call.__name__: call for call in CALLS}
for line in sys.stdin:
    name, arguments, kwargs = json.loads(line)
    slept.clear()
    try:
        answer = {"value": FUNCTIONS[name](*arguments, **kwargs)}
    except Exception as error:  # whatever it is, the test wants to see it
        answer = {"error": [type(error).__name__, str(error)]}
    answers.write(json.dumps({**answer, "slept": slept}) + "\n")
    answers.flush()
