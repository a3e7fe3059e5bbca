"""Bad input of the pruner: one clear error each, at construction, and nothing written."""

import pytest
import torch
from accelerate import Accelerator
from transformers import BertModel, MPNetConfig, MPNetForMaskedLM

from schubert_hf import SchuBertForPreTraining, SchuBertForSequenceClassification
from schubert_hf.anatomy import UnknownTensorError
from schubert_hf.conversion import ConversionError
from schubert_hf.cost import BudgetError
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.pruning.data import PruningDataError
from schubert_hf.run.output import OutputFolderError
from schubert_hf.training.objective import ObjectiveError


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "100M"}, BudgetError, "less than the model's own"),
        ({"target": "nonsense"}, BudgetError, "give a size like"),
        ({"target": 0.01, "dimensions": "auto"}, BudgetError, "the smallest that removing 'hfakve' can reach"),
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
            lambda tiny, bert_config: SchuBertForPreTraining(tiny(vocab_size=98)),
            PruningDataError,
            "has 99 word pieces, the model 98",
        ),
        (
            lambda tiny, bert_config: SchuBertForSequenceClassification(tiny()),
            ObjectiveError,
            "no masked-language-model head.*Give .Outputs.*or the objective of its task, such as .*Classification",
        ),
        (lambda tiny, bert_config: BertModel(bert_config()), ObjectiveError, "has no masked-language-model head"),
        (
            lambda tiny, bert_config: MPNetForMaskedLM(MPNetConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1)),
            ConversionError,
            "`bert` is a MPNetForMaskedLM. MPNet cannot become a SchuBERT.*Take one that can",
        ),
        (
            lambda tiny, bert_config: SchuBertForPreTraining(tiny()).to("meta"),
            ConversionError,
            "`model` is on the meta device, without weights",
        ),
    ],
)
def test_other_models_are_refused(make_pruner, tiny, bert_config, tmp_path, build, error, message):
    with pytest.raises(error, match=message):
        make_pruner(build(tiny, bert_config), tmp_path / "result")
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
