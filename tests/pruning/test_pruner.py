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
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    MPNetConfig,
    MPNetForMaskedLM,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from schubert_hf import (
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
    SchuBertForSequenceClassification,
    SchuBertPruner,
)
from schubert_hf.anatomy import UnknownTensorError
from schubert_hf.auto import auto_map
from schubert_hf.conversion import ConversionError
from schubert_hf.cost import BudgetError
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.pruning.data import PruningDataError, sum_over_processes
from schubert_hf.pruning.phases import train_alphas
from schubert_hf.pruning.result import RoundRecord
from schubert_hf.run.checkpoint import newest_checkpoint
from schubert_hf.run.output import PRUNING_RECORD, OutputFolderError
from schubert_hf.shape import Shape
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.objective import ObjectiveError
from schubert_hf.training.step import NonFiniteLossError

BERT = {
    "vocab_size": 99,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 23,
}


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
def test_a_bert_is_converted_and_not_touched(make_pruner, model_class):
    bert = model_class(BertConfig(**BERT)).eval()
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


def test_a_result_is_published_with_its_tokenizer(make_pruner, tokenizer, monkeypatch):
    result = make_pruner(rounds=1, recovery_steps=0).prune()
    assert result.output_dir is None
    given = []
    monkeypatch.setattr("schubert_hf.hub.publish", lambda *arguments, **options: given.append((arguments, options)))
    result.push_to_hub("org/small", private=True)
    result.push_to_hub("org/small", tokenizer=None)
    assert given[0] == ((result, "org/small"), {"tokenizer": tokenizer, "private": True})
    assert given[1][1] == {"tokenizer": None}


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


def train_alone(pruner):
    """The alphas of a first round."""
    pruner._open_session()
    pruner.session.model = pruner.dense
    objective = pruner.make_objective(pruner.dense)
    gates = train_alphas(pruner.phases, objective, pruner.budget.cost, pruner.config, "round")
    assert set(gates.drift()) == {"drift", "drift_h", "drift_f", "drift_a", "drift_k", "drift_v"}
    return gates


def test_while_alphas_are_trained_weights_are_frozen(make_pruner, monkeypatch):
    pruner = make_pruner(rounds=1, alpha_steps=3)
    before = copy.deepcopy(pruner.dense.state_dict())
    seen = []

    step = TrainingLoop._train_step

    def watched(loop, batches):
        result = step(loop, batches)
        seen.append([(p.requires_grad, p.grad) for p in pruner.dense.parameters()])
        return result

    monkeypatch.setattr(TrainingLoop, "_train_step", watched)
    gates = train_alone(pruner)
    assert len(seen) == 3
    assert all(entry == (False, None) for step in seen for entry in step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruner.dense.state_dict().items())
    assert all(parameter.requires_grad for parameter in pruner.dense.parameters())
    assert all(not torch.equal(alpha, torch.ones_like(alpha)) for alpha in gates.values().values())


def test_training_masks_are_not_the_evaluations(make_pruner):
    data = make_pruner(train_dataset=make_examples(24), eval_dataset=make_examples(24)).data
    example = data.eval_stream[0]
    assert data.eval_stream[0]["input_ids"] == make_examples(24)[0]["input_ids"]
    batches = [collator([example] * 8)["labels"] for collator in (data.collator, data.eval_collator)]
    assert not torch.equal(*batches)
    assert data.eval_collator.mlm_probability == data.collator.mlm_probability


def test_divergence_is_one_error_and_finished_rounds_stay(make_pruner, tmp_path, monkeypatch):
    pruner = make_pruner(output_dir=tmp_path, rounds=2)
    run_round = SchuBertPruner._run_round

    def spoil(self, number):
        if number == 2:
            with torch.no_grad():
                self.model.bert.embeddings.LayerNorm.weight.fill_(float("nan"))
        run_round(self, number)

    monkeypatch.setattr(SchuBertPruner, "_run_round", spoil)
    with pytest.raises(NonFiniteLossError):
        pruner.prune()
    assert newest_checkpoint(tmp_path / "checkpoints").name == "round-001"
    assert not (tmp_path / "config.json").exists()


# Bad input: one clear error each, at construction, and nothing written.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "100M"}, BudgetError, "less than the model's own"),
        ({"target": "nonsense"}, BudgetError, "give a size like"),
        ({"target": 0.01}, BudgetError, "the smallest that removing 'hfakv' can reach"),
        ({"target": 0.6, "dimensions": "k"}, BudgetError, "the smallest that removing 'k' can reach"),
        ({"tokenizer": None}, PruningDataError, "Give `data_collator`, or `tokenizer`"),
        ({"train_dataset": []}, PruningDataError, "`train_dataset`: The set of examples is empty"),
        ({"eval_dataset": []}, PruningDataError, "`eval_dataset`: The set of examples is empty"),
        ({"train_dataset": iter([])}, PruningDataError, "`train_dataset` is a list_iterator"),
        ({"train_dataset": ["text"]}, PruningDataError, "first examples of `train_dataset` do not make a batch"),
        ({"train_dataset": [{"ids": [2, 7, 3]}]}, PruningDataError, "do not make a batch: KeyError 'input_ids'"),
        (
            {"eval_dataset": [{"input_ids": [2, 7, 3]}]},
            PruningDataError,
            r"`eval_dataset` does not suit SchuBertForPreTraining: .* needs `next_sentence_label`",
        ),
        (
            {"train_dataset": [{"input_ids": [2] * 24, "next_sentence_label": 0}]},
            PruningDataError,
            "`train_dataset` has examples of 24 word pieces, but the model has positions for 23",
        ),
        (
            {"train_dataset": [{"input_ids": [3, 3, 3], "token_type_ids": [0, 1, 2], "next_sentence_label": 0}]},
            PruningDataError,
            "`token_type_ids` from 0 to 2, but the model has embeddings for 0 to 1",
        ),
        (
            {"train_dataset": [{"input_ids": [2, 99, 98, 99, 3], "next_sentence_label": 0}] * 9},
            PruningDataError,
            "`input_ids` from .* to 99, but the model has embeddings for 0 to 98",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(make_pruner, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        make_pruner(output_dir=tmp_path / "result", **options)
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda tiny: SchuBertForPreTraining(tiny(vocab_size=98)),
            PruningDataError,
            "has 99 word pieces, the model 98",
        ),
        (
            lambda tiny: SchuBertForSequenceClassification(tiny()),
            ObjectiveError,
            "no masked-language-model head.*Give .Outputs.*or the objective of its task, such as .*Classification",
        ),
        (lambda tiny: BertModel(BertConfig(**BERT)), ObjectiveError, "has no masked-language-model head"),
        (
            lambda tiny: MPNetForMaskedLM(MPNetConfig(**BERT)),
            ConversionError,
            "`bert` is a MPNetForMaskedLM. MPNet cannot become a SchuBERT.*Take one that can",
        ),
    ],
)
def test_other_models_are_refused(make_pruner, tiny, tmp_path, build, error, message):
    with pytest.raises(error, match=message):
        make_pruner(build(tiny), tmp_path / "result")
    assert not (tmp_path / "result").exists()


def test_foreign_modules_are_refused(make_pruner, tiny):
    model = SchuBertForPreTraining(tiny())
    model.bert.encoder.layer[0].adapter = torch.nn.Linear(40, 40)
    with pytest.raises(UnknownTensorError, match=r"`bert.encoder.layer.0.adapter` is not a module of SchuBERT"):
        make_pruner(model)


def test_a_batch_that_cannot_be_shared_out_is_refused(make_pruner):
    class Three(Accelerator):
        num_processes = 3

    with pytest.raises(PruningConfigError, match="`batch_size` is 8 examples per step over 3 processes"):
        make_pruner(accelerator=Three(cpu=True))


def test_a_folder_with_a_model_is_refused(make_pruner, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputFolderError, match="already holds a model"):
        make_pruner(output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_result_can_be_opened_without_this_package(make_pruner, tmp_path):
    """By `trust_remote_code=True`: all that this takes is in the folder."""
    make_pruner(output_dir=tmp_path, rounds=1).prune()
    auto_class = get_class_from_dynamic_module("modeling_schubert.SchuBertForMaskedLM", str(tmp_path))
    assert auto_class.__module__.startswith("transformers_modules.")
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == auto_map()
    auto_class.from_pretrained(tmp_path)
