"""Pruning on a corpus that is read on the fly: resumed is uninterrupted, and nothing is asked of all of it."""

import json

import pytest
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from oracles import documents, make_examples, same_weights
from watching import dying_at

from schubert_hf.data.stream import StreamError
from schubert_hf.data.streaming import StreamedPairs
from schubert_hf.data.text import not_held_out
from schubert_hf.run.checkpoint import CheckpointError, newest_checkpoint


@pytest.fixture
def streamed(tokenizer):
    def build(files=4):
        corpus = IterableDataset.from_generator(documents, gen_kwargs={"files": list(range(files))})
        return StreamedPairs(corpus, tokenizer, max_length=20, wanted=not_held_out)

    return build


@pytest.mark.parametrize("method", ["auto", "schubert"])
@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_is_uninterrupted(make_pruner, streamed, tmp_path, monkeypatch, method, workers):
    if workers:
        monkeypatch.setattr("schubert_hf.training.loop.workers_for", lambda *_: 1)
    options = {"method": method, "alpha_steps": 5, "recovery_steps": 5, "save_steps": 2, "calibration_examples": 16}
    whole = make_pruner(output_dir=tmp_path / "whole", train_dataset=streamed(), **options).prune()
    accelerator = dying_at(3, 8, 11)
    lives = 0
    while lives < 5:
        lives += 1
        pruner = make_pruner(
            output_dir=tmp_path / "resumed", train_dataset=streamed(), accelerator=accelerator, **options
        )
        try:
            resumed = pruner.prune(resume=True)
            break
        except KeyboardInterrupt:
            continue
    assert lives == 4
    assert resumed.plans == whole.plans
    assert same_weights(resumed.model, whole.model)


def test_no_count_is_claimed(make_pruner, streamed, tmp_path):
    result = make_pruner(output_dir=tmp_path, train_dataset=streamed(), rounds=1).prune()
    assert result.provenance["examples"] is None
    assert (tmp_path / "config.json").exists()


def test_another_number_of_processes_is_refused(make_pruner, streamed, tmp_path):
    options = {"recovery_steps": 5, "save_steps": 1, "output_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        make_pruner(train_dataset=streamed(), accelerator=dying_at(2), **options).prune()
    path = newest_checkpoint(tmp_path / "checkpoints") / "state.json"
    state = json.loads(path.read_text())
    state["training"]["data_state"] *= 2
    path.write_text(json.dumps(state))
    with pytest.raises(StreamError, match="`processes` 2, this one has 1"):
        make_pruner(train_dataset=streamed(), **options).prune(resume=True)


def test_accumulation_reads_the_same(make_pruner, streamed):
    whole = make_pruner(train_dataset=streamed(), rounds=1).prune()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    parts = make_pruner(train_dataset=streamed(), rounds=1, accelerator=accelerator).prune()
    assert parts.plans == whole.plans
    for name, tensor in parts.model.state_dict().items():
        torch.testing.assert_close(tensor, whole.model.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_examples_by_number_need_no_state(make_pruner):
    assert make_pruner(train_dataset=make_examples(30)).data.stream.state() is None


def test_another_stream_is_another_run(make_pruner, streamed, tmp_path, monkeypatch):
    make_pruner(output_dir=tmp_path, train_dataset=streamed(), rounds=1, recovery_steps=0).prune()
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="`train_dataset` was "):
        make_pruner(output_dir=tmp_path, train_dataset=streamed(files=3), rounds=1, recovery_steps=0).prune(
            resume=True
        )


def test_the_same_object_begins_again_where_the_stream_began(make_pruner, streamed):
    pruner = make_pruner(train_dataset=streamed(), rounds=1)
    first, second = pruner.prune(), pruner.prune()
    assert same_weights(first.model, second.model)
