"""SchuBERT configuration: BERT with a width of its own in every layer.

Khetan & Karnin, *schuBERT: Optimizing Elements of BERT*, ACL 2020, arXiv 2005.06628; its letters stand by the fields.
This file is copied into every published repository. It imports nothing but torch, transformers and huggingface_hub.
"""
# mypy: allow-subclassing-any, allow-untyped-calls, allow-untyped-decorators, no-warn-return-any

import os
from collections.abc import Callable
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


class SchuBertConfigError(ValueError):
    """A config that describes no SchuBERT model. `validate()` wraps it in a StrictDataclassClassValidationError."""


# The five lists, in the order h, f, a, k, v, each with the least width that it may hold. A sublayer of 0 heads or 0
# filters adds its output bias only.
LAYER_LISTS = {"hidden_sizes": 1, "filter_sizes": 0, "head_counts": 0, "key_query_sizes": 1, "value_sizes": 1}

# BERT's scalars: (the list behind it, how it is read off that list, the same in words, BERT-base's value).
SCALARS: dict[str, tuple[str, Callable[[list[int]], int], str, int]] = {
    "hidden_size": ("hidden_sizes", lambda sizes: sizes[-1], "last entry of `hidden_sizes`", 768),
    "num_hidden_layers": ("hidden_sizes", len, "length of `hidden_sizes` and the other lists", 12),
    "num_attention_heads": ("head_counts", max, "largest entry of `head_counts`", 12),
    "intermediate_size": ("filter_sizes", max, "largest entry of `filter_sizes`", 3072),
}

# Scalars with a legal range, both ends included.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "type_vocab_size"), (1, float("inf"))),
    **dict.fromkeys(("chunk_size_feed_forward", "initializer_range", "layer_norm_eps"), (0, float("inf"))),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), (0, 1)),
}

# Per class: has a pooler; has the masked-LM head; outputs of the linear layer on top ("num_labels": the config's).
ARCHITECTURES: dict[str, tuple[bool, bool, int | str]] = {
    "SchuBertModel": (True, False, 0),
    "SchuBertForPreTraining": (True, True, 2),
    "SchuBertForMaskedLM": (False, True, 0),
    "SchuBertForNextSentencePrediction": (True, False, 2),
    "SchuBertForSequenceClassification": (True, False, "num_labels"),
    "SchuBertForMultipleChoice": (True, False, 1),
    "SchuBertForTokenClassification": (False, False, "num_labels"),
    "SchuBertForQuestionAnswering": (False, False, 2),
}

# The shapes that the paper prints; what is absent is BERT-base's. They stand here and not in a module of the package,
# so that `SchuBertConfig.from_preset` also works in the copy of this file that remote code loads.
# fmt: off
PRESETS: dict[str, dict[str, int | list[int]]] = {
    "bert-base": {},
    "schubert-99m": {
        "filter_sizes": [2022, 2222, 2344, 2478, 2576, 2530, 2638, 2660, 2748, 2792, 2852, 2974],
        "head_counts": [12, 12, 12, 12, 11, 12, 12, 12, 12, 12, 12, 12],
        "value_sizes": [54, 54, 46, 58, 52, 60, 64, 64, 64, 64, 64, 62],
    },
    "schubert-88m": {
        "hidden_size": 756,
        "filter_sizes": [1382, 1550, 1672, 1956, 2052, 2030, 2210, 2314, 2474, 2556, 2668, 2938],
        "head_counts": [12, 12, 11, 12, 11, 12, 12, 12, 12, 12, 12, 12],
        "value_sizes": [46, 48, 42, 52, 46, 54, 64, 62, 64, 64, 64, 40],
    },
    **{f"schubert-{m}m": {"hidden_size": h} for m, h in {77: 544, 66: 466, 55: 390, 43: 304, 33: 234}.items()},
}
# fmt: on

UNSET: Any = None  # what `__post_init__` fills in


@strict
class SchuBertConfig(PreTrainedConfig):
    """The shape of a SchuBERT model; the default is BERT-base.

    The five lists are the truth, one plain int per layer. A missing list is filled from BERT's scalar, "the same in
    every layer", so that a BERT `config.json` is a valid input. Afterwards the scalars are read off the lists:
    `hidden_size` is the last layer's width (what a head sees), `num_hidden_layers` the number of layers,
    `num_attention_heads` and `intermediate_size` the largest layer's. A scalar given beside its list must agree.
    To change a finished config assign whole lists, then call `validate()`; one edited in place is caught there and
    on saving. All other fields mean what they mean in `BertConfig`.

    Args:
        hidden_sizes: h, at least 1. Layer i works on the first `hidden_sizes[i]` channels of the residual stream.
        filter_sizes: f, feed-forward filters, at least 0.
        head_counts: a, attention heads, at least 0.
        key_query_sizes: k, key and query size per head, at least 1. Default: `hidden_size // num_attention_heads`.
        value_sizes: v, value size per head, at least 1. Default: `hidden_size // num_attention_heads`.

    Raises:
        SchuBertConfigError: for a shape that breaks these rules, a decoder, or another model's config.
    """

    model_type = "schubert"

    vocab_size: int = 30522
    # The types of the nine fields of the shape are strings: `strict` skips those, and `__setattr__` below takes tuples
    # and gives errors that name layer, rule and way out.
    hidden_size: "int" = UNSET
    num_hidden_layers: "int" = UNSET
    num_attention_heads: "int" = UNSET
    intermediate_size: "int" = UNSET
    hidden_sizes: "list[int]" = UNSET
    filter_sizes: "list[int]" = UNSET
    head_counts: "list[int]" = UNSET
    key_query_sizes: "list[int]" = UNSET
    value_sizes: "list[int]" = UNSET
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float | int = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | int | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        _check_model_type(kwargs.pop("model_type", self.model_type))
        if architectures := getattr(self, "architectures", None):
            self.architectures = [f"Schu{name}" if name.startswith("Bert") else name for name in architectures]
        if (positions := kwargs.pop("position_embedding_type", "absolute")) != "absolute":
            raise SchuBertConfigError(
                f"`position_embedding_type` is {positions!r}: SchuBERT has 'absolute' position embeddings only. "
                "Start from a BERT checkpoint with absolute positions."
            )
        self._fill_lists()
        self.validate_shape()
        super().__post_init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        finished = name in self.__dict__  # the first assignment of a field is __init__'s own
        if name in LAYER_LISTS and (value is not None or finished):
            value = _plain_list(name, value, LAYER_LISTS[name])
        elif name in SCALARS and finished:
            self._check_scalar(name, value)
        elif name in SCALARS and value is not None:
            _plain_list(name, [value], 1 if name == "num_hidden_layers" else LAYER_LISTS[SCALARS[name][0]])
        elif name in ("is_decoder", "add_cross_attention") and value:
            raise SchuBertConfigError(
                f"`{name}` is {value!r}: SchuBERT is an encoder without cross-attention. Use `{name}=False`, or BERT."
            )
        elif name in RANGES and value is not None and not RANGES[name][0] <= value <= RANGES[name][1]:
            raise SchuBertConfigError(f"`{name}` is {value!r}, allowed is {RANGES[name][0]} to {RANGES[name][1]}.")
        super().__setattr__(name, value)
        if name in LAYER_LISTS and finished:
            self._read_scalars()

    def _fill_lists(self) -> None:
        """Fill the missing lists from the scalars, check that what was given agrees, then derive the scalars."""
        given = {name: widths for name in LAYER_LISTS if (widths := getattr(self, name)) is not None}
        _check_lengths(given)
        scalars = {name: value for name in SCALARS if (value := getattr(self, name)) is not None}
        known = {name: scalars.get(name, default) for name, (*_, default) in SCALARS.items()}
        layers = len(next(iter(given.values()))) if given else known.pop("num_hidden_layers")
        for scalar in ("hidden_size", "num_attention_heads", "intermediate_size"):
            self.__dict__[SCALARS[scalar][0]] = given.get(SCALARS[scalar][0], [known[scalar]] * layers)
        for scalar, value in scalars.items():
            self._check_scalar(scalar, value)
        self._read_scalars()
        hidden, heads = self.__dict__["hidden_size"], self.__dict__["num_attention_heads"]
        for name in [name for name in ("key_query_sizes", "value_sizes") if name not in given]:
            if heads == 0 or hidden % heads:
                raise SchuBertConfigError(
                    f"`{name}` is not given, and BERT's rule `hidden_size // num_attention_heads` has no answer for "
                    f"{hidden} and {heads}: it needs a multiple. Give `{name}`, one size per layer."
                )
            self.__dict__[name] = [hidden // heads] * layers

    def _read_scalars(self) -> None:
        for scalar, (source, read, _, _) in SCALARS.items():
            self.__dict__[scalar] = read(self.__dict__[source])

    def _check_scalar(self, name: str, value: Any) -> None:
        source, read, words, _ = SCALARS[name]
        if type(value) is not int or value != read(self.__dict__[source]):
            raise SchuBertConfigError(
                f"`{name}` is {value!r}, but it is the {words}: {read(self.__dict__[source])}. Leave `{name}` out, "
                f"and give or assign a whole new list `{source}` instead."
            )

    def validate_shape(self) -> None:
        """Raise `SchuBertConfigError` unless lists and scalars together describe a model. Part of `validate()`."""
        _check_lengths({name: _plain_list(name, getattr(self, name), least) for name, least in LAYER_LISTS.items()})
        for scalar in SCALARS:
            self._check_scalar(scalar, getattr(self, scalar))
        if self.pad_token_id is not None and not -self.vocab_size <= self.pad_token_id < self.vocab_size:
            raise SchuBertConfigError(
                f"`pad_token_id` is {self.pad_token_id}, outside a vocabulary of `vocab_size` {self.vocab_size}. "
                "Give an index below it, or None."
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json`; a BERT's counts as SchuBERT's, any other model's raises `SchuBertConfigError`."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        _check_model_type(config_dict.get("model_type", cls.model_type))
        return {**config_dict, "model_type": cls.model_type}, kwargs  # now `from_pretrained` has nothing to warn of

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from a SchuBERT or BERT dict; keyword arguments replace fields, lists as a whole."""
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        config, unused = super().from_dict(dict(config_dict), return_unused_kwargs=True, **kwargs)
        config.validate_shape()
        return (config, unused) if return_unused_kwargs else config

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write `config.json`, after checking the shape."""
        self.validate_shape()
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "SchuBertConfig":
        """One of the paper's shapes, e.g. `SchuBertConfig.from_preset("schubert-66m", vocab_size=28996)`."""
        if name not in PRESETS:
            raise SchuBertConfigError(f"`name` is {name!r}: no such preset. There are {', '.join(PRESETS)}.")
        # k and v stay at BERT's 64 while h shrinks ("expansive attention").
        shape = {"key_query_sizes": [64] * 12, "value_sizes": [64] * 12, **PRESETS[name], **overrides}
        return cls(**shape)

    def num_parameters(self, architecture: str = "SchuBertModel", *, add_pooling_layer: bool | None = None) -> int:
        """Parameters of that class, tied ones counted once; see `parameter_breakdown`."""
        return sum(self.parameter_breakdown(architecture, add_pooling_layer=add_pooling_layer).values())

    def parameter_breakdown(
        self, architecture: str = "SchuBertModel", *, add_pooling_layer: bool | None = None
    ) -> dict[str, int]:
        """`embeddings`, `encoder.layer.{i}.attention`, `encoder.layer.{i}.filters`, `pooler`, `head` -> parameters."""
        if architecture not in ARCHITECTURES:
            raise SchuBertConfigError(f"`architecture` is {architecture!r}, allowed is {', '.join(ARCHITECTURES)}.")
        pooler, masked_lm, outputs = ARCHITECTURES[architecture]
        pooler = pooler if add_pooling_layer is None else add_pooling_layer
        outputs = self.num_labels or 0 if isinstance(outputs, str) else outputs
        first, last, vocab = self._layers()[0][0], self._layers()[-1][0], self.vocab_size
        parts = {"embeddings": (vocab + self.max_position_embeddings + self.type_vocab_size + 2) * first}
        for i, (h, f, a, k, v) in enumerate(self._layers()):
            parts[f"encoder.layer.{i}.attention"] = a * (2 * k + v) * (h + 1) + a * v * h + 3 * h
            parts[f"encoder.layer.{i}.filters"] = f * (h + 1) + f * h + 3 * h
        parts["pooler"] = last * (last + 1) if pooler else 0
        parts["head"] = outputs * (last + 1)
        if masked_lm:
            decoder = 0 if self.tie_word_embeddings else (first + 1) * vocab  # untied, its weight and bias are its own
            parts["head"] += (last + 3) * first + vocab + decoder  # transform with LayerNorm, bias, decoder
        return parts

    def flops(self, seq_len: int = 128, batch_size: int = 1) -> int:
        """FLOPs of one forward pass of `SchuBertModel`, pooler included: 2mnk for each product m x k by k x n."""
        tokens, last = batch_size * seq_len, self._layers()[-1][0]
        total = 2 * batch_size * last * last
        for h, f, a, k, v in self._layers():
            total += 2 * tokens * (h * a * (2 * k + v) + a * v * h)  # query, key, value; output
            total += 2 * tokens * seq_len * a * (k + v)  # scores; weighted values
            total += 2 * tokens * 2 * h * f
        return total

    def _layers(self) -> list[tuple[int, int, int, int, int]]:
        """(h, f, a, k, v) of every layer."""
        return list(zip(*(self.__dict__[name] for name in LAYER_LISTS), strict=True))


def _plain_list(name: str, value: Any, least: int) -> list[int]:
    """`value` as a new list of plain ints, or a `SchuBertConfigError` that names the first bad layer."""
    rule = f"`{name}` {'is' if name in SCALARS else 'holds, for each layer,'} a plain int of at least {least}"
    if not isinstance(value, list | tuple) or len(value) == 0:
        raise SchuBertConfigError(f"{rule}, but got {value!r}. Write `{name}={[max(least, 64)] * 2}` for two layers.")
    for layer, width in enumerate(value):
        where = "" if name in SCALARS else f" in layer {layer}"
        if type(width) is not int:
            got = f"{width!r} of type {type(width).__name__}"
            raise SchuBertConfigError(f"{rule}, but got {got}{where}. Convert it with `int()`.")
        if width < least:
            raise SchuBertConfigError(f"{rule}, but got {width}{where}. Give at least {least}.")
    return list(value)


def _check_lengths(lists: dict[str, list[int]]) -> None:
    if len({len(widths) for widths in lists.values()}) > 1:
        lengths = ", ".join(f"`{name}` has {len(widths)}" for name, widths in lists.items())
        raise SchuBertConfigError(f"All lists need one entry per layer, but {lengths}. Give lists of the same length.")


def _check_model_type(model_type: str) -> None:
    if model_type not in ("schubert", "bert"):
        raise SchuBertConfigError(
            f"`model_type` is {model_type!r}: only 'schubert' and 'bert' describe a SchuBERT model. "
            "Start from a BERT or SchuBERT checkpoint."
        )
