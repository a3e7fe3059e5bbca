"""What the README's table says works with a pruned model, a test for each row."""

import contextlib

import pytest
import torch
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from datasets import Dataset
from forks import run
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, Trainer, TrainingArguments

from schubert_hf import SchuBertForMaskedLM, SchuBertForSequenceClassification, SchuBertLoadError, SchuBertModel
from schubert_hf.modeling_schubert import SchuBertPreTrainedModel

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's

# Layer 1 has neither heads nor filters: what fits every other layer must not trip over it.
EMPTY = {"head_counts": [3, 0, 1], "filter_sizes": [41, 0, 53]}


def adapted(model, config):
    """Trains adapters for a step, with every one of them moved."""
    wrapped = peft.get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad and "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped.eval()


def test_lora_needs_no_target_modules(ragged, batch, randomised):
    torch.manual_seed(0)
    model = randomised(SchuBertForSequenceClassification(ragged(**EMPTY)))
    before = model(**batch(type(model))).logits
    wrapped = adapted(model, peft.LoraConfig(task_type="SEQ_CLS", r=4))
    names = {
        name.split(".lora_A")[0].rpartition("layer.")[2] for name, _ in wrapped.named_modules() if "lora_A." in name
    }
    assert names == {f"{layer}.attention.self.{part}" for layer in (0, 2) for part in ("query", "value")}
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in trained)
    inputs = batch(type(model))
    outputs = wrapped(**inputs)
    outputs.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in wrapped.named_parameters() if name in trained)
    merged = wrapped.merge_and_unload()
    assert type(merged) is SchuBertForSequenceClassification
    torch.testing.assert_close(merged(**inputs).logits, outputs.logits)
    assert (outputs.logits - before).abs().max() > 1e-3


ADAPTERS = ["LoraConfig", "VeraConfig", "LoHaConfig"]


@pytest.mark.parametrize(
    ("kind", "shape"), [*((kind, EMPTY) for kind in ADAPTERS), *((kind, {}) for kind in [*ADAPTERS, "IA3Config"])]
)
def test_other_adapters_find_their_targets(ragged, batch, kind, shape):
    wrapped = peft.get_peft_model(SchuBertForMaskedLM(ragged(**shape)), getattr(peft, kind)())
    wrapped(**batch(SchuBertForMaskedLM)).loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in wrapped.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
def test_virtual_tokens_have_the_width_of_the_embeddings(ragged, batch, kind):
    model = SchuBertForSequenceClassification(ragged(embedding_size=19, **EMPTY))
    width = model.config.embedding_size
    prompts = getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=4, token_dim=width)
    inputs = {name: x[:, :-4] if x.ndim > 1 else x for name, x in batch(type(model)).items()}  # positions for 4 more
    wrapped = peft.get_peft_model(model, prompts)
    wrapped(**inputs).loss.backward()
    assert bool(wrapped.prompt_encoder.default.embedding.weight.grad.any())


def test_an_adapter_is_saved_and_loaded(ragged, batch, tmp_path):
    model = SchuBertForMaskedLM(ragged(**EMPTY)).eval()
    model.save_pretrained(tmp_path / "model")
    wrapped = adapted(model, peft.LoraConfig())
    wrapped.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        SchuBertForMaskedLM.from_pretrained(tmp_path / "model"), tmp_path / "adapter"
    )
    inputs = batch(SchuBertForMaskedLM, labels=False)
    torch.testing.assert_close(again.eval()(**inputs).logits, wrapped(**inputs).logits)


def train(model, examples, folder, **arguments):
    """The losses of transformers' Trainer, and the trained weights."""
    rows = [{name: x[row % 2].tolist() for name, x in examples.items()} for row in range(12)]
    settings = {
        "max_steps": 5,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "learning_rate": 0.1,
        "optim": "sgd",
    }
    settings |= {"per_device_train_batch_size": 4, "disable_tqdm": True, "save_strategy": "no", **arguments}
    trainer = Trainer(model, TrainingArguments(str(folder), **settings), train_dataset=Dataset.from_list(rows))
    with contextlib.redirect_stdout(None):
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: x.detach().clone() for name, x in model.named_parameters()}


@pytest.mark.parametrize(
    "arguments",
    [
        {"gradient_checkpointing": True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ],
    ids=["gradient checkpointing", "gradient accumulation"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_trainer(ragged, batch, tmp_path, arguments):
    """It learns, and saving memory changes nothing."""
    config = ragged(**EMPTY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = SchuBertForSequenceClassification(config)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    examples = batch(type(model))
    before = model(**examples).loss
    losses, weights = train(model, examples, tmp_path / "plain")
    assert model(**examples).loss < before
    other = SchuBertForSequenceClassification(config)
    other.load_state_dict(state)
    same_losses, same = train(other, examples, tmp_path / "saving", **arguments)
    assert same_losses == pytest.approx(losses, rel=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, rtol=1e-3, atol=2e-4)


def test_dispatch_to_disk_with_the_tied_decoder(ragged, batch, tmp_path, randomised):
    model = randomised(SchuBertForMaskedLM(ragged(**EMPTY)))
    model.save_pretrained(tmp_path / "model")
    with init_empty_weights():
        empty = SchuBertForMaskedLM(model.config)
    empty.tie_weights()
    places = {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "cpu"}
    spread = load_checkpoint_and_dispatch(
        empty, tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    ).eval()
    assert spread.bert.encoder.layer[0].intermediate.dense.weight.is_meta  # on the disk until it is needed
    assert spread.cls.predictions.decoder.weight is spread.bert.embeddings.word_embeddings.weight
    inputs = batch(SchuBertForMaskedLM, labels=False)
    torch.testing.assert_close(spread(**inputs).logits, model(**inputs).logits)


def test_device_map_of_from_pretrained(ragged, batch, tmp_path, randomised):
    model = randomised(SchuBertForMaskedLM(ragged()))
    model.save_pretrained(tmp_path)
    loaded = SchuBertForMaskedLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    inputs = batch(SchuBertForMaskedLM, labels=False)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


# Run as two processes, whose shards are then put together; and as one, on both halves of the batch.
FSDP = """
import os, sys
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from schubert_hf import load
torch.set_num_threads(1)
alone = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
dist.init_process_group("gloo", **({} if "RANK" in os.environ else alone))
rank, world = dist.get_rank(), dist.get_world_size()
model = load(sys.argv[1]).train()
if world > 1:
    mesh = init_device_mesh("cpu", (world,))
    for layer in model.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
ids = torch.randint(1, 99, (4, 11), generator=torch.Generator().manual_seed(0))
own = ids if world == 1 else ids[2 * rank : 2 * rank + 2]
for _ in range(3):
    loss = model(input_ids=own, labels=own).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
whole = {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in model.named_parameters()}
if rank == 0:
    from safetensors.torch import save_file
    save_file({name: x.detach().contiguous() for name, x in whole.items()}, sys.argv[2])
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_fsdp2_on_two_processes_trains_as_one(ragged, tmp_path):
    from safetensors.torch import load_file

    SchuBertForMaskedLM(ragged(**EMPTY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).save_pretrained(
        tmp_path / "model"
    )
    (tmp_path / "train.py").write_text(FSDP)
    results = []
    for processes in (1, 2):
        result = tmp_path / f"{processes}.safetensors"
        ended = run(tmp_path / "train.py", tmp_path / "model", result, processes=processes)
        assert result.exists(), ended.stderr[-3000:]
        results.append(load_file(result))
    one, two = results
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5)


class Ranker(SchuBertPreTrainedModel):
    """A class of the user's own: a head, and a parameter, that this package does not know."""

    def __init__(self, config):
        super().__init__(config)
        self.bert, self.rank = SchuBertModel(config), torch.nn.Linear(config.hidden_size, 1)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()


@pytest.mark.parametrize("dense", [True, False])
def test_a_class_of_ones_own_starts_from_a_checkpoint_and_leaves_one(bert_config, ragged, tmp_path, dense):
    model = BertForMaskedLM(bert_config()) if dense else SchuBertForMaskedLM(ragged(**EMPTY))
    model.save_pretrained(tmp_path / "first")
    ranker, info = Ranker.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert info["missing_keys"] == {
        *("rank.weight", "rank.bias", "scale"),
        *("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
    }
    ranker.save_pretrained(tmp_path / "ranker")
    assert not Ranker.from_pretrained(tmp_path / "ranker", output_loading_info=True)[1]["missing_keys"]
    encoder, info = SchuBertModel.from_pretrained(tmp_path / "ranker", output_loading_info=True)
    assert info["unexpected_keys"] == {"rank.weight", "rank.bias", "scale"}  # of which transformers warns
    torch.testing.assert_close(encoder.state_dict(), ranker.bert.state_dict())
    tensors = load_file(tmp_path / "ranker" / "model.safetensors")
    save_file({**tensors, "encoder.x": torch.ones(1)}, tmp_path / "ranker" / "model.safetensors", {"format": "pt"})
    with pytest.raises(SchuBertLoadError, match=r"left over: encoder\.x"):
        SchuBertModel.from_pretrained(tmp_path / "ranker")
    save_file({n: x for n, x in tensors.items() if n != "rank.bias"}, tmp_path / "ranker" / "model.safetensors")
    with pytest.raises(SchuBertLoadError, match=r"missing: rank\.bias"):
        Ranker.from_pretrained(tmp_path / "ranker")
