"""Repositories of the Hub as they are, made small: config.json with all its odd fields, and the tokenizer's settings.

Sizes are shrunk, weights are random; everything else stands there as it was published, by tools of many ages.
"""

import json

import torch
import transformers
from relatives import tokenizer_of

BERT_SIZES = {
    "hidden_size": 36,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 37,
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
ROBERTA = {
    **BERT_SIZES,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 25,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
BERT = {
    **BERT_SIZES,
    "architectures": ["BertModel"],
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 23,
    "model_type": "bert",
    "pad_token_id": 0,  # though the tokenizer's is 1
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
}
SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": {
        "__type": "AddedToken",
        "content": "<mask>",
        "lstrip": True,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    },
    "model_max_length": 23,
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}
XLM_R_TOKENIZER = {**SPECIAL, "clean_up_tokenization_spaces": True, "tokenizer_class": "XLMRobertaTokenizer"}
LENGTH = {"model_max_length": 23}

XLM_R = {
    **ROBERTA,
    "model_type": "xlm-roberta",
    "output_past": True,
    "position_embedding_type": "absolute",
    "use_cache": True,
}

# Name -> config.json, family of the tokenizer, tokenizer_config.json.
REPOSITORIES = {
    "FacebookAI/roberta-base": (
        {**ROBERTA, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta"},
        "roberta",
        LENGTH,
    ),
    "distilbert/distilroberta-base": (
        {**ROBERTA, "num_hidden_layers": 1, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta"},
        "roberta",
        LENGTH,
    ),
    "FacebookAI/xlm-roberta-base": (
        {
            **XLM_R,
            "architectures": ["XLMRobertaForMaskedLM"],
            "transformers_version": "4.17.0.dev0",
        },
        "xlm-roberta",
        LENGTH,
    ),
    "almanach/camembert-base": (
        {
            **ROBERTA,
            "architectures": ["CamembertForMaskedLM"],
            "bos_token_id": 5,
            "eos_token_id": 6,
            "gradient_checkpointing": False,
            "model_type": "camembert",
            "output_past": True,
            "position_embedding_type": "absolute",
            "transformers_version": "4.15.0",
            "use_cache": True,
        },
        "camembert",
        LENGTH,
    ),
    "distilbert/distilbert-base-uncased": (
        {
            "activation": "gelu",
            "architectures": ["DistilBertForMaskedLM"],
            "attention_dropout": 0.1,
            "dim": 36,
            "dropout": 0.1,
            "hidden_dim": 37,
            "initializer_range": 0.02,
            "max_position_embeddings": 23,
            "model_type": "distilbert",
            "n_heads": 4,
            "n_layers": 2,
            "pad_token_id": 0,
            "qa_dropout": 0.1,
            "seq_classif_dropout": 0.2,
            "sinusoidal_pos_embds": False,
            "tie_weights_": True,
            "transformers_version": "4.10.0.dev0",
        },
        "distilbert",
        {"do_lower_case": True, **LENGTH},
    ),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        {
            "activation": "gelu",
            "architectures": ["DistilBertForSequenceClassification"],
            "attention_dropout": 0.1,
            "dim": 36,
            "dropout": 0.1,
            "finetuning_task": "sst-2",
            "hidden_dim": 37,
            "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
            "initializer_range": 0.02,
            "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
            "max_position_embeddings": 23,
            "model_type": "distilbert",
            "n_heads": 4,
            "n_layers": 2,
            "output_past": True,
            "pad_token_id": 0,
            "qa_dropout": 0.1,
            "seq_classif_dropout": 0.2,
            "sinusoidal_pos_embds": False,
            "tie_weights_": True,
        },
        "distilbert",
        {"do_lower_case": True, **LENGTH},
    ),
    "google/electra-base-discriminator": (
        {
            **BERT_SIZES,
            "architectures": ["ElectraForPreTraining"],
            "embedding_size": 36,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 23,
            "model_type": "electra",
            "pad_token_id": 0,
            "summary_activation": "gelu",
            "summary_last_dropout": 0.1,
            "summary_type": "first",
            "summary_use_proj": True,
            "type_vocab_size": 2,
        },
        "electra",
        {"do_lower_case": True, **LENGTH},
    ),
    "intfloat/multilingual-e5-small": (
        {
            **BERT,
            "_name_or_path": "tmp/",
            "classifier_dropout": None,
            "tokenizer_class": "XLMRobertaTokenizer",
            "torch_dtype": "float32",
            "transformers_version": "4.29.0.dev0",
        },
        "xlm-roberta",
        XLM_R_TOKENIZER,
    ),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": (
        {
            **BERT,
            "_name_or_path": "old_models/paraphrase-multilingual-MiniLM-L12-v2/0_Transformer",
            "gradient_checkpointing": False,
            "transformers_version": "4.7.0",
        },
        "xlm-roberta",
        {**SPECIAL, "do_lower_case": True, "strip_accents": None, "tokenizer_class": "PreTrainedTokenizerFast"},
    ),
    "BAAI/bge-m3": (
        {
            **XLM_R,
            "_name_or_path": "",
            "architectures": ["XLMRobertaModel"],
            "classifier_dropout": None,
            "torch_dtype": "float32",
            "transformers_version": "4.33.0",
        },
        "xlm-roberta",
        XLM_R_TOKENIZER,
    ),
    "BAAI/bge-reranker-base": (
        {
            **XLM_R,
            "_name_or_path": "/share/rerank-base",
            "architectures": ["XLMRobertaForSequenceClassification"],
            "classifier_dropout": None,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "torch_dtype": "float32",
            "transformers_version": "4.28.1",
        },
        "xlm-roberta",
        XLM_R_TOKENIZER,
    ),
}


def write_repository(name, folder, texts):
    """The files of such a repository; returns the model as transformers has it."""
    fields, family, settings = REPOSITORIES[name]
    tokenizer = tokenizer_of(family, texts)
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    fields = {**fields, "vocab_size": len(tokenizer) + 3}
    torch.manual_seed(1)
    config = transformers.CONFIG_MAPPING[fields["model_type"]].from_dict(dict(fields))
    model = getattr(transformers, fields["architectures"][0])(config).eval()
    for key, parameter in model.named_parameters():
        norm = "norm" in key.lower() and key.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if norm else 0.0, std=0.3)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(fields))
    return model


def make_sentence_transformer(folder, pooling, **settings):
    """Puts beside a checkpoint what sentence-transformers 2 wrote, with the modules' names of that time."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 23, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": 36,
            **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
        },
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "2.2.2", "transformers": "4.33.0", "pytorch": "2.1.2+cu121"},
            **settings,
        },
    }
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
