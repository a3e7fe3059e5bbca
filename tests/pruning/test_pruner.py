"""The pruner from end to end, on models of thousands of parameters."""

import copy
import json
import re

import pytest
import torch
from accelerate import Accelerator
from oracles import make_examples, parameter_cost
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    BertForPreTraining,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from watching import WatchedAccelerator

from schubert_hf import (
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
)
from schubert_hf.auto import auto_map
from schubert_hf.pruning.data import sum_over_processes
from schubert_hf.pruning.result import RoundRecord
from schubert_hf.run.checkpoint import newest_checkpoint
from schubert_hf.run.output import PRUNING_RECORD
from schubert_hf.shape import Shape
from schubert_hf.training.step import NonFiniteLossError


def test_two_rounds_to_a_budget(make_pruner, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")  # every step is a line
    torch.manual_seed(5)
    model = SchuBertForPreTraining(tiny()).train()
    state, mode = copy.deepcopy(model.state_dict()), model.training
    parameters = [(id(p), p.requires_grad, p.grad) for p in model.parameters()]
    pruner = make_pruner(model, tmp_path / "result", target="60%", method="schubert", provenance={"base": "tiny"})
    result = pruner.prune()

    # The size: what was asked for, by prediction and by count, in two equal steps.
    assert (
        result.model.num_parameters()
        == result.size
        == parameter_cost(tiny(), "SchuBertForPreTraining")(Shape.of(result.model.config))
    )
    assert result.source_size == model.num_parameters()
    assert 0.55 < result.kept <= 0.6
    first, second = result.rounds
    assert 0.75 < first.size / result.source_size <= 0.8
    assert (first.size_before, second.size_before) == (result.source_size, first.size)
    assert all(width % 8 == 0 for width in result.model.config.hidden_sizes)
    assert all(width % 8 == 0 or width in (41, 29) for width in result.model.config.filter_sizes)
    assert not result.model.training

    # What was given is as it was.
    assert [(id(p), p.requires_grad, p.grad) for p in model.parameters()] == parameters
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.training is mode
    assert Shape.of(model.config) == Shape.of(tiny())

    # The record.
    assert set(first.before) == {"mlm", "nsp", "loss", "mlm_accuracy", "nsp_accuracy"}
    assert second.before == first.after_recovery
    assert all(RoundRecord.from_json(json.loads(json.dumps(record.to_json()))) == record for record in result.rounds)
    written = json.loads((tmp_path / "result" / PRUNING_RECORD).read_text())
    assert written == json.loads(json.dumps(result.to_json()))
    assert written["provenance"]["base"] == "tiny"
    assert set(first.seconds) == {"evaluation", "selection", "cut", "recovery"}
    assert [plan.source for plan in result.plans] == [result.source, first.shape]
    assert result.plans[-1].shape == second.shape

    # The files, and the last checkpoints.
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "result")
    ids = torch.arange(5, 15)[None]
    assert torch.equal(loaded(input_ids=ids).logits, result.model(input_ids=ids).prediction_logits)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "result")) == 99
    names = ["round-001-recovery-0000000", "round-002"]
    assert sorted(p.name for p in (tmp_path / "result" / "checkpoints").iterdir()) == names
    assert not [path for path in (tmp_path / "result").iterdir() if path.name.startswith(".")]

    # Progress that names round, phase and loss, and one line for each round.
    bars = capsys.readouterr().err
    for phase in ("round 1/2 before the cut", "round 1/2 alphas", "round 2/2 after the cut", "round 2/2 recovery"):
        assert phase in bars
    assert re.search(r"round 2/2 alphas: (\d+)/\1 .*mlm=\d\.\d+, nsp=\d\.\d+", bars)
    assert "\r" not in bars
    summed_up = [line for line in bars.splitlines() if " after recovery, learning rate " in line]
    assert [line.partition(":")[0] for line in summed_up] == ["round 1/2", "round 2/2"]
    assert [" left" in line for line in summed_up] == [True, False]


@pytest.mark.parametrize("model_class", [BertForPreTraining, BertForMaskedLM])
def test_a_bert_is_converted_and_not_touched(make_pruner, bert_config, model_class):
    bert = model_class(bert_config()).eval()
    before = copy.deepcopy(bert.state_dict())
    result = make_pruner(bert, rounds=1, dimensions="hf").prune()
    assert type(result.model).__name__ == f"Schu{model_class.__name__}"
    assert result.model.num_parameters() <= 0.6 * bert.num_parameters()
    assert all(torch.equal(tensor, before[name]) for name, tensor in bert.state_dict().items())
    assert all(parameter.requires_grad for parameter in bert.parameters())


def test_masked_lm_alone_needs_no_next_sentence_label(make_pruner, tiny):
    examples = [{"input_ids": example["input_ids"]} for example in make_examples(30)]
    result = make_pruner(SchuBertForMaskedLM(tiny()), rounds=1, train_dataset=examples, eval_dataset=examples).prune()
    assert set(result.rounds[0].before) == {"mlm", "loss", "mlm_accuracy"}
    assert result.output_dir is None


def test_one_process_sums_where_the_tensor_is():
    """On a device without float64 the moments stay on the CPU."""

    class Limited(Accelerator):
        device = torch.device("meta")

    moments = torch.ones(3, dtype=torch.float64)
    assert sum_over_processes(Limited(cpu=True), moments) is moments


def test_without_recovery(make_pruner):
    record = make_pruner(rounds=1, recovery_steps=0).prune().rounds[0]
    assert record.after_recovery == record.after_cut


def test_untied_decoder(make_pruner, tiny):
    result = make_pruner(SchuBertForPreTraining(tiny(tie_word_embeddings=False)), rounds=1).prune()
    assert result.model.num_parameters() == result.size
    assert result.model.cls.predictions.decoder.weight is not result.model.bert.embeddings.word_embeddings.weight


def test_a_pruned_model_is_pruned_again(make_pruner):
    once = make_pruner(rounds=1, target=0.8).prune()
    twice = make_pruner(once.model, rounds=1, target=0.8).prune()
    assert twice.source == once.rounds[-1].shape
    assert twice.size <= 0.8 * once.size


def test_half_precision_is_trained_in_single(make_pruner, tiny):
    model = SchuBertForPreTraining(tiny()).half()
    result = make_pruner(model, rounds=1).prune()
    assert result.model.dtype == torch.float32
    assert model.dtype == torch.float16
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())


def test_mixed_precision(make_pruner):
    result = make_pruner(rounds=1, accelerator=Accelerator(cpu=True, mixed_precision="bf16")).prune()
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert result.provenance["precision"] == "bf16"


def test_while_alphas_are_trained_weights_are_frozen(make_pruner):
    dense, seen = None, []

    def look(step):
        if step.phase == "alphas":
            seen.extend((p.requires_grad, p.grad) for p in dense.parameters())
            seen.append(all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items()))

    accelerator = WatchedAccelerator(look)
    pruner = make_pruner(method="schubert", rounds=1, alpha_steps=3, recovery_steps=0, accelerator=accelerator)
    dense, before = pruner.dense, copy.deepcopy(pruner.dense.state_dict())
    result = pruner.prune()
    assert [step.phase for step in accelerator.steps] == ["alphas"] * 3
    assert set(seen) == {(False, None), True}
    assert all(parameter.requires_grad for parameter in dense.parameters())
    assert all((low, high) != (1, 1) for low, _, high in result.rounds[0].alphas.values())


def test_training_masks_are_not_the_evaluations(make_pruner):
    data = make_pruner(train_dataset=make_examples(24), eval_dataset=make_examples(24)).data
    example = data.eval_stream[0]
    assert data.eval_stream[0]["input_ids"] == make_examples(24)[0]["input_ids"]
    batches = [collator([example] * 8)["labels"] for collator in (data.collator, data.eval_collator)]
    assert not torch.equal(*batches)
    assert data.eval_collator.mlm_probability == data.collator.mlm_probability


def test_divergence_is_one_error_and_finished_rounds_stay(make_pruner, tmp_path):
    accelerator = WatchedAccelerator(lambda step: float("nan") if step.taken >= 2 else None)  # in the second round
    with pytest.raises(NonFiniteLossError):
        make_pruner(output_dir=tmp_path, rounds=2, accelerator=accelerator).prune()
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest.name == "round-001-recovery-0000000"
    assert len(json.loads((newest / "state.json").read_text())["progress"]["rounds"]) == 1
    assert not (tmp_path / "config.json").exists()


def test_a_result_can_be_opened_without_this_package(make_pruner, tmp_path):
    """By `trust_remote_code=True`: all that this takes is in the folder, whoever saves it."""
    written, by_its_owner = tmp_path / "written", tmp_path / "again"
    make_pruner(output_dir=written, rounds=1).prune()
    make_pruner(rounds=1).prune().model.save_pretrained(by_its_owner)
    for folder in (written, by_its_owner):
        auto_class = get_class_from_dynamic_module("modeling_schubert.SchuBertForMaskedLM", str(folder))
        assert auto_class.__module__.startswith("transformers_modules.")
        assert json.loads((folder / "config.json").read_text())["auto_map"] == auto_map()
        auto_class.from_pretrained(folder)
