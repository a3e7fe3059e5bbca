"""Tiny models of BERT's relatives, of random weights, all sizes different."""

import json

import pytest
import torch
import transformers
from datasets import Dataset
from starts import train_wordpiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROBERTA = {
    "vocab_size": 99,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 25,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
CONFIGS = {
    "roberta": ROBERTA,
    "xlm-roberta": {**ROBERTA, "type_vocab_size": 2},
    "camembert": ROBERTA,
    "distilbert": {
        "vocab_size": 99,
        "dim": 36,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 37,
        "max_position_embeddings": 23,
    },
    "electra": {
        **{name: value for name, value in ROBERTA.items() if name != "pad_token_id"},
        "embedding_size": 20,
        "type_vocab_size": 2,
    },
}
ENDINGS = {"SequenceClassification": 3, "TokenClassification": 5, "QuestionAnswering": 2, "MultipleChoice": 2}
PREFIX = {
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
}
NAMES = [
    (family, PREFIX[family] + ending)
    for family in CONFIGS
    for ending in ("Model", "ForMaskedLM", *(f"For{name}" for name in ENDINGS))
]


# A run of the pruner that trains nothing.
QUICK = {
    "rounds": 1,
    "recovery_steps": 0,
    "calibration_examples": 8,
    "batch_size": 4,
    "eval_examples": 8,
    "report_to": "none",
    "threads": 1,
}


def config_of(family, **fields):
    return transformers.AutoConfig.for_model(family, **{**CONFIGS[family], **fields})


def build(family, name, *, dtype=torch.float32, **fields):
    """A model in evaluation mode, every parameter of a size that matters."""
    labels = next((number for ending, number in ENDINGS.items() if name.endswith(ending)), 2)
    torch.manual_seed(1)
    model = getattr(transformers, name)(config_of(family, **{"num_labels": labels, **fields}))
    if name.endswith("MultipleChoice") and getattr(model.base_model, "pooler", "none needed") is None:
        pytest.skip(f"{name} of transformers {transformers.__version__} lacks the pooler that its own forward reads")
    for key, parameter in model.named_parameters():
        norm = "norm" in key.lower() and key.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if norm else 0.0, std=0.3)
    return model.to(dtype).eval()


def inputs(model, *, segments=False, left=False):
    """Token ids with padding, (2, 11) or (2, 3, 11); with or without segments."""
    torch.manual_seed(2)
    shape = (2, 3, 11) if type(model).__name__.endswith("MultipleChoice") else (2, 11)
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, ..., slice(0, 3) if left else slice(8, None)] = 0
    ids = torch.randint(5, 99, shape).masked_fill(mask == 0, model.config.pad_token_id)
    given = {"input_ids": ids, "attention_mask": mask}
    if segments and getattr(model.config, "type_vocab_size", 2) > 1:  # a DistilBERT's tokenizer may give them, too
        given["token_type_ids"] = torch.randint(0, 2, shape)
    return given


def compute(model, given):
    """All outputs, hidden states too; those of padding, which nobody reads, as zeros."""
    with torch.no_grad():
        outputs = dict(model(**given, output_hidden_states=True))
    outputs["hidden_states"] = torch.stack(outputs["hidden_states"])
    mask = given["attention_mask"].flatten(0, -2)  # (B, S)

    def real(x):
        if x.shape[:2] == mask.shape:
            return x * mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
        return x * mask[None, :, :, None] if x.ndim == 4 else x

    return {name: real(x.float()) for name, x in outputs.items()}


def assert_same(ours, theirs, given, atol=1e-5):
    got, want = compute(ours, given), compute(theirs, given)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], atol=atol, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CAMEMBERT = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]


def tokenizer_of(family, texts):
    """The family's own tokenizer, its vocabulary made of these texts: byte-level BPE, Unigram, or WordPiece."""
    if family == "roberta":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        raw.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
            ),
        )
        model = json.loads(raw.to_str())["model"]
        merges = [tuple(merge) for merge in model["merges"]]
        return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=23)
    if family in ("xlm-roberta", "camembert"):
        raw = Tokenizer(models.Unigram())
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        raw.train_from_iterator(
            texts,
            trainers.UnigramTrainer(
                vocab_size=200,
                special_tokens=CAMEMBERT if family == "camembert" else SPECIAL,
                unk_token="<unk>",
                show_progress=False,
            ),
        )
        pieces = [tuple(piece) for piece in json.loads(raw.to_str())["model"]["vocab"]]
        kind = transformers.XLMRobertaTokenizer if family == "xlm-roberta" else transformers.CamembertTokenizer
        return kind(vocab=pieces, model_max_length=23)
    return train_wordpiece(Dataset.from_dict({"text": texts}), vocab_size=160, max_length=23)
