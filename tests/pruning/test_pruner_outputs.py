"""Pruning to match the dense model: every head, every method, stopped and resumed, on one process and on two."""

import json
from pathlib import Path

import pytest
import torch
from forks import run
from oracles import QUICK, make_examples
from torch.nn.functional import normalize
from watching import WatchedAccelerator, dying_at

from schubert_hf import SchuBertModel
from schubert_hf.auto import MODELS
from schubert_hf.pruning.checks import fingerprint
from schubert_hf.run.checkpoint import CheckpointError
from schubert_hf.training.distillation import DistillationObjective
from schubert_hf.training.outputs import Outputs

HERE = Path(__file__).parents[1]  # where oracles.py is
NAMES = {kind.__name__: auto for auto, kind in MODELS.items()}


def embed(states, mask):
    weights = mask.unsqueeze(-1).to(states)
    return normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def make_model(name, config):
    kind = MODELS[NAMES[name]]
    torch.manual_seed(0)
    model = kind(config)
    for parameter_name, parameter in model.named_parameters():
        if "LayerNorm" not in parameter_name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def with_choices(examples):
    """Three in one, as multiple choice wants them."""
    names = ("input_ids", "token_type_ids")
    threes = [examples[n : n + 3] for n in range(0, len(examples) - 2, 3)]
    return [{name: [example[name] for example in three] for name in names} for three in threes]


def data_for(name):
    train, held_out = make_examples(120), make_examples(24, seed=1)
    if "MultipleChoice" in name:
        train, held_out = with_choices(train), with_choices(held_out)
    return {"train_dataset": train, "eval_dataset": held_out}


@pytest.mark.parametrize("name", NAMES)
def test_every_head_is_pruned_to_match_itself(name, tiny, make_pruner, tmp_path):
    fields = {"num_labels": 3} if "Classification" in name else {}
    model, options = make_model(name, tiny(**fields)), {"target": "70%", "dimensions": "auto", **data_for(name)}
    pruner = make_pruner(model, tmp_path / "small", objective=Outputs(), **options)
    result = pruner.prune()
    assert result.kept <= 0.7
    terms = pruner.objective.terms
    first, last = result.rounds[0], result.rounds[-1]
    for term in terms:
        assert first.before[term] == pytest.approx(0, abs=1e-6)
        assert 0 < last.after_recovery[term] <= last.after_cut[term] * 1.05
    assert not isinstance(pruner.objective, DistillationObjective)
    opened = NAMES[name].from_pretrained(tmp_path / "small").eval()
    assert type(opened).__name__ == name
    batch = pruner.data.sample
    with torch.no_grad():
        ours, theirs = (pruner.maker(model)(batch) for model in (result.model, opened))
    for term in terms:
        assert float(ours[term]) == pytest.approx(float(theirs[term]), rel=1e-5)


@pytest.mark.parametrize("method", ["schubert", "magnitude", "layers", "auto"])
def test_methods_rounds_and_targets_on_embeddings(method, tiny, make_pruner, tmp_path):
    """Also where the stream narrows: embeddings stay as wide as they were."""
    pruner = make_pruner(
        make_model("SchuBertModel", tiny()),
        tmp_path / "small",
        target="90%,80%",
        rounds=1,
        method=method,
        dimensions="h" if method == "auto" else "hfakv",
        teacher_hidden_weight=0.5,
        objective=Outputs(embed=embed),
    )
    result = pruner.prune()
    assert result.kept <= 0.8
    assert len(result.rounds) == 2
    assert pruner.objective.terms == ("embedding", "similarity", "states")
    assert result.rounds[-1].after_recovery["embedding"] > 0
    narrow = result.model.config.hidden_size
    lift = pruner.objective.lift
    assert (lift is None) == (narrow == 40)
    if lift is not None:
        assert lift[0].shape == (40, narrow)
        assert pruner.objective.recipe.channels is not None
        assert len(pruner.objective.recipe.channels) == narrow
    if method == "schubert":  # the loss moves alphas, though it is at its minimum where they begin
        assert any(smallest < 0.999 or largest > 1.001 for smallest, _, largest in result.rounds[0].alphas.values())


def test_embeddings_become_narrower_than_the_stream_and_narrower_again(tiny, make_pruner, tmp_path):
    model = make_model("SchuBertModel", tiny())
    options = {"target": "85%,75%", "rounds": 1, "dimensions": "ev", "multiple_of": 4}
    result = make_pruner(model, tmp_path / "small", objective=Outputs(embed=embed), **options).prune()
    first, last = (record.shape.embedding_size for record in result.rounds)
    assert first is not None
    assert last is not None
    assert last < first < 40
    assert last % 4 == 0
    assert result.rounds[-1].size == result.model.num_parameters() <= 0.75 * model.num_parameters()
    assert {"embedding_size"} <= {name for one in result.rounds[0].candidates for name in one}
    opened = SchuBertModel.from_pretrained(result.output_dir)
    assert opened.config.embedding_size == opened.embeddings.word_embeddings.embedding_dim == last
    assert opened.config.num_parameters() == result.model.num_parameters()


def test_nothing_trained_and_the_loss_alone_decides(tiny, make_pruner):
    accelerator = WatchedAccelerator()
    model = make_model("SchuBertForSequenceClassification", tiny(num_labels=1))
    result = make_pruner(model, rounds=1, recovery_steps=0, objective=Outputs(), accelerator=accelerator).prune()
    assert not accelerator.steps
    assert result.rounds[0].after_cut == result.rounds[0].after_recovery
    assert set(result.rounds[0].before) == {"score", "score_accuracy", "loss"}


@pytest.mark.parametrize("method", ["auto", "schubert"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(method, tiny, make_pruner, tmp_path):
    def prune(folder, resume=False, **watched):
        model = make_model("SchuBertModel", tiny(hidden_dropout_prob=0.1))
        options = {"method": method, "dimensions": "hfkv", "save_steps": 1, "target": "60%", "recovery_steps": 3}
        pruner = make_pruner(model, tmp_path / folder, objective=Outputs(embed=embed), **options, **watched)
        return pruner.prune(resume=resume)

    whole = prune("whole")
    accelerator = dying_at(1, 4, 7)
    resumed, lives = None, 0
    while resumed is None:
        lives += 1
        try:
            resumed = prune("resumed", resume=True, accelerator=accelerator)
        except KeyboardInterrupt:
            continue
    assert lives > 2
    assert fingerprint(resumed.model) == fingerprint(whole.model)
    options = {"method": method, "dimensions": "hfkv", "save_steps": 1, "target": "60%", "recovery_steps": 3}
    other = make_pruner(
        make_model("SchuBertModel", tiny(hidden_dropout_prob=0.1)),
        tmp_path / "resumed-2",
        **options,
        objective=Outputs(),
    )
    (tmp_path / "resumed-2").mkdir(exist_ok=True)
    (tmp_path / "resumed" / "checkpoints").rename(tmp_path / "resumed-2" / "checkpoints")
    with pytest.raises(CheckpointError, match="outputs"):
        other.prune(resume=True)


SCRIPT = """
import json, sys
sys.path[:0] = [{here!r}, {here!r} + "/pruning"]
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from oracles import QUICK, make_examples
from test_pruner_outputs import embed, make_model
from transformers import BertTokenizerFast
from schubert_hf import PruningConfig, SchuBertConfig, SchuBertPruner
from schubert_hf.training.outputs import Outputs

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{{n}}" for n in range(94))]
shape = dict(hidden_sizes=[40, 40], filter_sizes=[41, 29], head_counts=[3, 2])
shape |= dict(key_query_sizes=[5, 7], value_sizes=[9, 4])
config = SchuBertConfig(**shape, vocab_size=99, max_position_embeddings=23, hidden_dropout_prob=0.0,
                        attention_probs_dropout_prob=0.0)
accelerator, found = Accelerator(cpu=True), []
for name, pool in (("SchuBertModel", embed), ("SchuBertForPreTraining", None)):
    result = SchuBertPruner(
        make_model(name, config), PruningConfig(**{{**QUICK, "dimensions": "auto", "micro_batch_size": 4}}),
        accelerator=accelerator,
        tokenizer=BertTokenizerFast(vocab={{word: number for number, word in enumerate(words)}}),
        train_dataset=make_examples(100), eval_dataset=make_examples(24, seed=1), objective=Outputs(embed=pool),
    ).prune()
    found.append([[plan.to_json() for plan in result.plans], [r.after_recovery for r in result.rounds]])
with open(f"{{sys.argv[1]}}/{{accelerator.process_index}}.json", "w") as stream:
    json.dump([accelerator.num_processes, found], stream)
accelerator.wait_for_everyone()
"""


def run_processes(folder, processes):
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT.format(here=str(HERE)))
    ended = run(script, folder, processes=processes)
    # Judged by what it wrote: gloo sometimes aborts at the interpreter's exit, after all is done.
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]
    assert [number for number, _ in reports] == [processes] * processes, ended.stderr[-4000:]
    return [found for _, found in reports]


@pytest.mark.slow
def test_two_processes_match_as_one_does(tmp_path):
    (one,) = run_processes(tmp_path / "one", 1)
    main, other = run_processes(tmp_path / "two", 2)
    assert main == other
    assert QUICK["rounds"] == len(one[0][1])
    for (plans, losses), (own_plans, own_losses) in zip(main, one, strict=True):
        assert plans == own_plans
        for ours, theirs in zip(losses, own_losses, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)
