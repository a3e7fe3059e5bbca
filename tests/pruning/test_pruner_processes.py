"""Two processes prune as one does, resume, and notice when they have drifted apart. Real processes, over gloo."""

import json
from pathlib import Path

import pytest
from forks import run
from oracles import QUICK

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1]  # where oracles.py is
SCRIPT = """
import json, sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from transformers import BertTokenizerFast
from oracles import QUICK, documents, make_examples
from datasets import IterableDataset
from schubert_hf import PruningConfig, SchuBertConfig, SchuBertForPreTraining, SchuBertPruner
from schubert_hf.latency.cost import LatencyCost
from schubert_hf.pruning import budget
from schubert_hf.data import streaming
from schubert_hf.pruning.checks import fingerprint
from schubert_hf.training.loop import TrainingLoop

accelerator = Accelerator(cpu=True)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{{n}}" for n in range(94))]
tokenizer = BertTokenizerFast(vocab={{word: number for number, word in enumerate(words)}})
shape = dict(hidden_sizes=[40, 40], filter_sizes=[41, 29], head_counts=[3, 2])
shape |= dict(key_query_sizes=[5, 7], value_sizes=[9, 4])

def examples():
    if sys.argv[2] != "streaming":
        return make_examples(100)
    corpus = IterableDataset.from_generator(documents, gen_kwargs={{"files": [0, 1, 2, 3]}})
    streaming.CHUNK_DOCUMENTS = 5
    return streaming.StreamedPairs(corpus, tokenizer, max_length=20)

def pruner(seed, output_dir=None, **options):
    torch.manual_seed(seed)
    config = SchuBertConfig(**shape, vocab_size=99, max_position_embeddings=23,
                            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    settings = PruningConfig(**{{**QUICK, "dimensions": "auto", "micro_batch_size": 4, **options}},
                             method="auto" if sys.argv[2] == "auto" else "schubert")
    return SchuBertPruner(
        SchuBertForPreTraining(config), settings, tokenizer=tokenizer,
        train_dataset=examples(), eval_dataset=make_examples(24, seed=1), accelerator=accelerator,
        output_dir=output_dir,
    )

result = pruner(0, sys.argv[1] + "/result").prune()
report = {{"processes": accelerator.num_processes, "plans": [plan.to_json() for plan in result.plans],
          "rounds": [record.to_json() for record in result.rounds]}}

searched = pruner(0, rounds=1, recovery_steps=12).prune().rounds[0]
report["searched"] = [searched.learning_rate, searched.best_step, searched.after_recovery["loss"]]

if sys.argv[2] == "streaming":  # stopped in every phase, by all processes at once
    step, taken = TrainingLoop._train_step, []

    def die(loop, batches):
        taken.append(loop.step)
        if len(taken) in (2, 5, 9):
            raise KeyboardInterrupt
        return step(loop, batches)

    TrainingLoop._train_step, lives, resumed = die, 0, None
    while resumed is None:
        lives += 1
        try:
            resumed = pruner(0, sys.argv[1] + "/resumed", save_steps=1).prune(resume=True)
        except KeyboardInterrupt:
            accelerator.wait_for_everyone()
    report |= {{"lives": lives, "weights": [fingerprint(result.model), fingerprint(resumed.model)]}}
elif accelerator.num_processes > 1:
    try:  # every process with weights of its own
        pruner(accelerator.process_index).prune()
    except RuntimeError as error:
        report["drifted"] = str(error)

    class Timed(LatencyCost):
        def __init__(self, config, **options):
            def timer(shapes, rounds):
                assert accelerator.is_main_process, "the main process times for all"
                return [float(sum(shape.hidden_sizes) * (9 + sum(shape.filter_sizes))) for shape in shapes]
            super().__init__(config, **options, timer=timer, cache_dir=sys.argv[1] + "/cache")

    budget.LatencyCost = Timed
    timed = pruner(0, target="80%", cost="latency", cost_seq_len=16).prune()
    report["timed"] = [timed.size / timed.source_size, *(plan.to_json() for plan in timed.plans)]
with open(f"{{sys.argv[1]}}/{{accelerator.process_index}}.json", "w") as stream:
    json.dump(report, stream)
accelerator.wait_for_everyone()
"""


def prune(folder, processes, method):
    """Runs the script; gives each process's report, and what they wrote on stderr."""
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT.format(here=str(HERE)))
    ended = run(script, folder, method, processes=processes)
    # Judged by what it wrote: gloo sometimes aborts at the interpreter's exit, after all is done.
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]
    assert len(reports) == processes, ended.stderr[-4000:]
    return reports, ended.stderr


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_two_processes_are_one(tmp_path, method):
    (one,), _ = prune(tmp_path / "one", 1, method)
    (main, other), bars = prune(tmp_path / "two", 2, method)
    assert one["processes"] == 1
    assert main["processes"] == other["processes"] == 2
    assert main["plans"] == other["plans"] == one["plans"]
    for ours, theirs in zip(main["rounds"], one["rounds"], strict=True):
        assert ours["shape"] == theirs["shape"]
        for moment in ("before", "after_cut", "after_recovery"):
            assert ours[moment] == pytest.approx(theirs[moment], rel=1e-4)
        assert bool(ours["alphas"]) == (method != "auto")
        for group, summary in theirs["alphas"].items():
            assert ours["alphas"][group] == pytest.approx(summary, abs=2e-4)
    # They find the same rate, and the same weights are the best.
    assert main["searched"] == other["searched"]
    assert main["searched"] == pytest.approx(one["searched"], rel=1e-3)
    # The main process wrote the result and told of the rounds, alone.
    assert (tmp_path / "two" / "result" / "config.json").exists()
    assert bars.count("round 2/2: ") == 2  # of two runs
    # And weights that differ are noticed, by both.
    assert "The processes hold different weights" in main["drifted"]
    assert "The processes hold different weights" in other["drifted"]
    assert QUICK["rounds"] == len(main["rounds"])
    # What the main process timed holds for both.
    assert main["timed"] == other["timed"]
    assert 0.7 < main["timed"][0] < 0.84


def test_two_processes_resume_a_stream(tmp_path):
    """Each has its own place in it; stopped three times, the run ends with the weights of one that was not."""
    reports, _ = prune(tmp_path / "two", 2, "streaming")
    whole, resumed = reports[0]["weights"]
    assert resumed == whole
    assert reports[1]["weights"] == reports[0]["weights"]
    assert reports[0]["processes"] == 2
    assert reports[0]["lives"] == 4
    assert reports[0]["searched"] == reports[1]["searched"]
    state = json.loads(next((tmp_path / "two" / "resumed" / "checkpoints").glob("*/state.json")).read_text())
    assert len(state["training"]["data_state"]) == 2
