"""Prunes a tiny model in a process of its own, which a test can kill: OUTPUT METHOD RESULT [--resume] [--kill EVENT].

Says on stdout, line by line, what it is about to do: every step, and every file of a checkpoint that is written. With
`--kill N` it kills itself, as nothing can prevent, before event number N. At the end the result goes to RESULT.

A script that `forks` runs, on one process or several.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from oracles import QUICK, make_examples, untimed
from transformers import BertTokenizerFast

from schubert_hf import PruningConfig, SchuBertConfig, SchuBertForPreTraining, SchuBertPruner
from schubert_hf.pruning import pruner as pruner_module
from schubert_hf.pruning import recovery
from schubert_hf.pruning.checks import fingerprint
from schubert_hf.run import checkpoint
from schubert_hf.run.interrupt import Interrupted
from schubert_hf.training.loop import TrainingLoop

SHAPE = {"hidden_sizes": [40, 40], "filter_sizes": [41, 29], "head_counts": [3, 2]}
SHAPE |= {"key_query_sizes": [5, 7], "value_sizes": [9, 4]}
events = 0


def parse(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("method")
    parser.add_argument("result", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill", type=int)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--save-steps", type=int, default=2)
    parser.add_argument("--recovery-steps", type=int, default=5)
    return parser.parse_args(words)


def before(owner, name, what, arguments):
    """Announces every call of a function, and dies before it when its turn has come."""
    function = getattr(owner, name)

    def announced(*args, **kwargs):
        global events
        print(events, what, flush=True)
        if events == arguments.kill:
            os.kill(os.getpid(), getattr(signal, arguments.signal))
        events += 1
        return function(*args, **kwargs)

    setattr(owner, name, announced)


def announce(arguments):
    for owner, name, what in (
        (TrainingLoop, "_train_step", "step"),
        (pruner_module, "compact", "compaction"),
        (SchuBertPruner, "_evaluate", "evaluation"),
        (recovery, "mean_loss", "fold"),
        (SchuBertForPreTraining, "save_pretrained", "writing weights"),
        (checkpoint, "save_file", "writing the optimizer"),
        (checkpoint, "write_json", "writing state.json"),
        (checkpoint, "_flush", "flushing"),
        (checkpoint.shutil, "rmtree", "clearing away"),
    ):
        before(owner, name, what, arguments)


def prune(arguments):
    torch.set_num_threads(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(94))]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    torch.manual_seed(0)
    model = SchuBertForPreTraining(SchuBertConfig(**SHAPE, vocab_size=99, max_position_embeddings=23))  # with dropout
    quick = {**QUICK, "dimensions": "auto", "method": arguments.method, "alpha_steps": 5, "micro_batch_size": 4}
    quick |= {"recovery_steps": arguments.recovery_steps, "save_steps": arguments.save_steps}
    config = PruningConfig(**{**quick, "rounds": 1, "target": "80%,60%", "teacher_weight": 1.0})
    accelerator = Accelerator(cpu=True)
    try:
        result = SchuBertPruner(
            model,
            config,
            train_dataset=make_examples(100),
            eval_dataset=make_examples(24, seed=1),
            tokenizer=tokenizer,
            output_dir=arguments.output,
            accelerator=accelerator,
        ).prune(resume=arguments.resume)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    report = {
        "processes": accelerator.num_processes,
        "plans": [plan.to_json() for plan in result.plans],
        "rounds": untimed(result),
        "weights": fingerprint(result.model),
        "events": events,
    }
    if accelerator.is_main_process:
        arguments.result.write_text(json.dumps(report))
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    announce(given)
    prune(given)
