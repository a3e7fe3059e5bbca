"""SchuBERT configuration: BERT with its own widths in every layer (Khetan & Karnin, ACL 2020, arXiv 2005.06628)."""
# This file is copied into every published repository. It imports only torch, transformers and huggingface_hub.
# mypy: allow-subclassing-any, allow-untyped-calls, allow-untyped-decorators, no-warn-return-any

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from transformers import configuration_utils
from transformers.activations import ACT2FN
from transformers.utils.versions import require_version

require_version("transformers>=5.4", "Run: pip install --upgrade transformers")


class SchuBertConfigError(ValueError):
    """A config that does not describe a SchuBERT model: the field, its value, what is allowed."""


# The five lists, in the order h, f, a, k, v, each with the least width that it may hold.
LAYER_LISTS = {"hidden_sizes": 1, "filter_sizes": 0, "head_counts": 0, "key_query_sizes": 1, "value_sizes": 1}
# Scalars: (the list behind it, how it is read off that list, the same in words, BERT-base's value).
SCALARS: dict[str, tuple[str, Callable[[list[int]], int], str, int]] = {
    "hidden_size": ("hidden_sizes", lambda sizes: sizes[-1], "last entry of `hidden_sizes`", 768),
    "num_hidden_layers": ("hidden_sizes", len, "length of `hidden_sizes` and the other lists", 12),
    "num_attention_heads": ("head_counts", max, "largest entry of `head_counts`", 12),
    "intermediate_size": ("filter_sizes", max, "largest entry of `filter_sizes`", 3072),
    "embedding_size": ("hidden_sizes", lambda sizes: sizes[0], "first entry of `hidden_sizes`", 768),
}
MOST = 2**31 - 1
UNSET: Any = None  # what `__post_init__` fills in


def _between(least: float, most: float, *others: Any) -> tuple[Callable[[Any], bool], str]:
    """Numbers in a range, both ends included; a range of ints allows ints only. And `others`."""
    kinds, words = ((int,), "an int") if type(least) is int else ((int, float), "a number")
    allowed = " or ".join([f"{words} from {least} to {most}", *map(str, others)])
    return lambda v: least <= v <= most if type(v) in kinds else v in others, allowed


BOOL = (lambda v: v is None or type(v) is bool, "True, False or None")
DTYPES = ("float32", "float16", "bfloat16", "float64", "None")
# Per field: is a value allowed; what is, in words.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "type_vocab_size"), _between(1, MOST)),
    **{name: _between(LAYER_LISTS[source], MOST, None) for name, (source, *_) in SCALARS.items()},
    **dict.fromkeys(("chunk_size_feed_forward", "num_labels"), _between(0, MOST)),
    **dict.fromkeys(("pad_token_id", "bos_token_id"), _between(-MOST, MOST, None)),
    **dict.fromkeys(("initializer_range", "layer_norm_eps"), _between(0.0, 1e38)),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), _between(0.0, 1.0)),
    **dict.fromkeys(("is_decoder", "add_cross_attention", "is_encoder_decoder"), (lambda v: not v, "False")),
    **dict.fromkeys(("tie_word_embeddings", "return_dict", "output_hidden_states", "project_embeddings"), BOOL),
    "classifier_dropout": _between(0.0, 1.0, None),
    **dict.fromkeys(("hidden_act", "pooler_act"), (lambda v: type(v) is str and v in ACT2FN, ", ".join(ACT2FN))),
    **dict.fromkeys(("padding_takes_positions", "add_pooling_layer"), (lambda v: type(v) is bool, "True or False")),
    "family": (lambda v: type(v) is str, "a model type, such as 'bert'"),
    "dtype": (lambda v: str(v).removeprefix("torch.") in DTYPES, ", ".join(DTYPES)),
    "architectures": (lambda v: v is None or (type(v) is list and {*map(type, v)} <= {str}), "class names or None"),
    "id2label": (lambda v: v is None or (type(v) is dict and all(str(n).isdecimal() for n in v)), "{number: name}"),
}
IGNORED = ("rope_scaling", "rope_theta", "rope_parameters", "layer_types", "mtp_layer_types", "per_layer_config")
# Per class: has a pooler; has the masked-LM head; outputs of the linear layer on top. A name: what the config says.
ARCHITECTURES: dict[str, tuple[Any, Any, Any]] = {
    "SchuBertModel": ("add_pooling_layer", False, 0),
    "SchuBertForPreTraining": (True, True, 2),
    "SchuBertForMaskedLM": (False, True, 0),
    "SchuBertForNextSentencePrediction": (True, False, 2),
    "SchuBertForSequenceClassification": (True, False, "num_labels"),
    "SchuBertForMultipleChoice": (True, False, 1),
    "SchuBertForTokenClassification": (False, False, "num_labels"),
    "SchuBertForQuestionAnswering": (False, False, 2),
}


class SchuBertConfig(configuration_utils.PreTrainedConfig):
    """The shape of a SchuBERT model; the default is BERT-base.

    The five lists define the shape, one plain int per layer. A missing list is filled from BERT's scalar, so a BERT
    `config.json` is a valid input. Afterwards the scalars follow the lists: `hidden_size` is the last layer's width,
    `num_attention_heads` and `intermediate_size` are the largest layer's. A scalar given beside its list must agree.
    To change a config assign whole lists, then call `validate()`. Fields that are not named here are `BertConfig`'s.

    Args:
        hidden_sizes: h, at least 1. Layer i works on the first `hidden_sizes[i]` channels of the residual stream.
        filter_sizes, head_counts: f, feed-forward filters, and a, attention heads, at least 0.
        key_query_sizes, value_sizes: k and v, per head, at least 1. Default: `hidden_size // num_attention_heads`.
        embedding_size: e, width of the embeddings, at most and by default `hidden_sizes[0]`, which it then follows.
        project_embeddings: whether a linear map leads from them to the first layer; by default where widths differ.
        family: model type of the checkpoint that the model was made from.
        pooler_act, add_pooling_layer: its activation; whether `SchuBertModel` has one, as heads that read it do.
        padding_takes_positions: False: positions count the tokens that are no padding, as RoBERTa's do.

    Raises:
        SchuBertConfigError: a field has a wrong type or value, or the config is a decoder's or another model's.
    """

    model_type = "schubert"
    # `import schubert_hf` fills these in.
    families: ClassVar[dict[str, Any]] = {}  # model types besides BERT's -> what reads their configs and weights
    refused: ClassVar[dict[str, str]] = {}  # other model types -> why
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # names of shapes -> their fields

    vocab_size: int = 30522
    hidden_size: int = UNSET
    num_hidden_layers: int = UNSET
    num_attention_heads: int = UNSET
    intermediate_size: int = UNSET
    hidden_sizes: list[int] = UNSET
    filter_sizes: list[int] = UNSET
    head_counts: list[int] = UNSET
    key_query_sizes: list[int] = UNSET
    value_sizes: list[int] = UNSET
    embedding_size: int = UNSET
    project_embeddings: bool = UNSET
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
    family: str = "bert"
    pooler_act: str = "tanh"
    padding_takes_positions: bool = True
    add_pooling_layer: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        _check_model_type(kwargs.pop("model_type", self.model_type))
        if architectures := getattr(self, "architectures", None):
            self.architectures = [f"Schu{name}" if name.startswith("Bert") else name for name in architectures]
        if (positions := kwargs.pop("position_embedding_type", "absolute")) != "absolute":
            raise SchuBertConfigError(f"`position_embedding_type` is {positions!r}, allowed is 'absolute'.")
        given = {name: widths for name in LAYER_LISTS if (widths := getattr(self, name)) is not None}
        _check_lengths(given)
        scalars = {name: value for name in SCALARS if (value := getattr(self, name)) is not None}
        known = {name: scalars.get(name, default) for name, (*_, default) in SCALARS.items()}
        layers = len(next(iter(given.values()))) if given else known.pop("num_hidden_layers")
        for scalar in ("hidden_size", "num_attention_heads", "intermediate_size"):
            self.__dict__[SCALARS[scalar][0]] = given.get(SCALARS[scalar][0], [known[scalar]] * layers)
        projects = self.embedding_size not in (None, self.hidden_sizes[0])
        self.__dict__["project_embeddings"] = projects if self.project_embeddings is None else self.project_embeddings
        for scalar, value in scalars.items():
            self._check_scalar(scalar, value)
        self._read_scalars()
        hidden, heads = self.hidden_size, self.num_attention_heads
        for name in [name for name in ("key_query_sizes", "value_sizes") if name not in given]:
            if heads == 0 or hidden % heads:
                rule = f"BERT's `hidden_size // num_attention_heads` needs a multiple, not {hidden} and {heads}"
                raise SchuBertConfigError(f"`{name}` is not given, and {rule}. Give `{name}`, one size per layer.")
            self.__dict__[name] = [hidden // heads] * layers
        with _config_errors("The config is not valid"):
            super().__post_init__(**{name: value for name, value in kwargs.items() if name not in IGNORED})
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        finished = name in self.__dict__  # the first assignment of a field is __init__'s own
        if name in LAYER_LISTS and (value is not None or finished):
            value = _plain_list(name, value, LAYER_LISTS[name])
        elif name in SCALARS and finished:
            self._check_scalar(name, value)
        elif name in RULES and not RULES[name][0](value):
            raise SchuBertConfigError(f"`{name}` is {value!r}, allowed is {RULES[name][1]}.")
        with _config_errors(f"`{name}` is {value!r}"):
            super().__setattr__(name, value)
        if name in LAYER_LISTS and finished:
            self._read_scalars()

    def _read_scalars(self) -> None:
        for scalar, (source, read, _, _) in SCALARS.items():
            if scalar != "embedding_size" or not self.project_embeddings or self.embedding_size is None:
                self.__dict__[scalar] = read(self.__dict__[source])

    def _check_scalar(self, name: str, value: Any) -> None:
        source, read, words, _ = SCALARS[name]
        width, at_most = read(self.__dict__[source]), name == "embedding_size" and self.project_embeddings
        if type(value) is not int or not (1 <= value <= width if at_most else value == width):
            raise SchuBertConfigError(
                f"`{name}` is {value!r}, but it is {'at most ' if at_most else ''}the {words}: {width}. "
                f"Leave it out, and give or assign a whole new list `{source}` instead."
            )

    def validate(self) -> None:
        """Raise `SchuBertConfigError` unless all fields together describe a model. Runs at construction and saving."""
        _check_lengths({name: _plain_list(name, getattr(self, name), least) for name, least in LAYER_LISTS.items()})
        for scalar in SCALARS:
            self._check_scalar(scalar, getattr(self, scalar))
        if self.pad_token_id is not None and not -self.vocab_size <= self.pad_token_id < self.vocab_size:
            raise SchuBertConfigError(f"`pad_token_id` is {self.pad_token_id}, beyond `vocab_size` {self.vocab_size}.")
        with _config_errors("The config is not valid"):
            super().validate()

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Read `config.json`; that of a BERT or of one of `families` as SchuBERT's, others raise an error."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        with _config_errors("config.json holds no JSON object"):
            return cls._as_schubert({**config_dict}), kwargs

    @classmethod
    def _as_schubert(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        model_type = config_dict.get("model_type", cls.model_type)
        if isinstance(model_type, str) and model_type in cls.families:
            return dict(cls.families[model_type].fields(config_dict))
        _check_model_type(model_type)
        return {**config_dict, "model_type": cls.model_type}  # so `from_pretrained` does not warn

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from such a dict; keyword arguments replace fields, lists as a whole."""
        found = super().from_dict(cls._as_schubert(config_dict), **kwargs)
        (found[0] if isinstance(found, tuple) else found).validate()
        return found

    @classmethod
    def why_refused(cls, model_type: str, *own: str) -> str:
        """Why a model type is none of `families`, or what is allowed: the types `own` and these."""
        return cls.refused.get(str(model_type), f"Allowed is one of {', '.join(map(repr, (*own, *cls.families)))}.")

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "SchuBertConfig":
        """One of the paper's shapes, e.g. `SchuBertConfig.from_preset("schubert-66m", vocab_size=28996)`."""
        if name not in cls.presets:
            raise SchuBertConfigError(f"`name` is {name!r}: no such preset. There are {', '.join(cls.presets)}.")
        return cls(**{**cls.presets[name], **overrides})

    def to_dict(self) -> dict[str, Any]:
        """All fields; of embeddings without a projection nothing that BERT's config.json does not say."""
        left_out = () if self.project_embeddings else ("embedding_size", "project_embeddings")
        return {name: value for name, value in super().to_dict().items() if name not in left_out}

    def num_parameters(self, architecture: str = "SchuBertModel", *, add_pooling_layer: bool | None = None) -> int:
        """Parameters of that class, tied ones counted once; see `parameter_breakdown`."""
        return sum(self.parameter_breakdown(architecture, add_pooling_layer).values())

    def parameter_breakdown(
        self, architecture: str = "SchuBertModel", add_pooling_layer: Any = None
    ) -> dict[str, int]:
        """`embeddings`, `encoder.layer.{i}.attention`, `encoder.layer.{i}.filters`, `pooler`, `head` -> parameters."""
        if architecture not in ARCHITECTURES:
            raise SchuBertConfigError(f"`architecture` is {architecture!r}, allowed is {', '.join(ARCHITECTURES)}.")
        pooler, masked_lm, outputs = (getattr(self, x) if type(x) is str else x for x in ARCHITECTURES[architecture])
        last, size, vocab = self.hidden_sizes[-1], self.embedding_size, self.vocab_size
        parts = {"embeddings": (vocab + self.max_position_embeddings + self.type_vocab_size + 2) * size}
        parts["embeddings"] += (size + 1) * self.hidden_sizes[0] if self.project_embeddings else 0
        for i, (h, f, a, k, v) in enumerate(zip(*(getattr(self, name) for name in LAYER_LISTS), strict=True)):
            parts[f"encoder.layer.{i}.attention"] = a * (2 * k + v) * (h + 1) + a * v * h + 3 * h
            parts[f"encoder.layer.{i}.filters"] = f * (h + 1) + f * h + 3 * h
        parts["pooler"] = last * (last + 1) * bool(pooler if add_pooling_layer is None else add_pooling_layer)
        parts["head"] = (outputs or 0) * (last + 1)
        if masked_lm:
            decoder = 0 if self.tie_word_embeddings else (size + 1) * vocab  # untied, its weight and bias are its own
            parts["head"] += (last + 3) * size + vocab + decoder  # transform with LayerNorm, bias, decoder
        return parts

    def flops(self, seq_len: int = 128, batch_size: int = 1) -> int:
        """FLOPs of one forward pass of `SchuBertModel`, pooler included: 2mnk for each product m x k by k x n."""
        per_token = self.embedding_size * self.hidden_sizes[0] if self.project_embeddings else 0
        for h, f, a, k, v in zip(*(getattr(self, name) for name in LAYER_LISTS), strict=True):
            per_token += (2 * h + seq_len) * a * (k + v) + 2 * h * f  # heads, with scores and weighted values; filters
        return 2 * batch_size * (seq_len * per_token + self.hidden_sizes[-1] ** 2)


def _plain_list(name: str, value: Any, least: int) -> list[int]:
    """`value` as a new list of plain ints, or a `SchuBertConfigError` that names the first bad layer."""
    rule = f"`{name}` holds, for each layer, a plain `int()` of at least {least} and at most {MOST}"
    if not isinstance(value, list | tuple) or len(value) == 0:
        raise SchuBertConfigError(f"{rule}, but got {value!r}. Write `{name}={[max(least, 64)] * 2}` for two layers.")
    for layer, width in enumerate(value):
        if type(width) is not int or not least <= width <= MOST:
            raise SchuBertConfigError(f"{rule}, but got {width!r} in layer {layer}, of type {type(width).__name__}.")
    return list(value)


@contextlib.contextmanager
def _config_errors(what: str) -> Iterator[None]:
    """Errors of transformers and huggingface_hub on what a config holds, as a `SchuBertConfigError`."""
    try:
        yield
    except SchuBertConfigError:
        raise
    except Exception as error:  # each check there raises another class
        raise SchuBertConfigError(f"{what}: {' '.join(str(error.__cause__ or error).split())}") from error


def _check_lengths(lists: dict[str, list[int]]) -> None:
    if len({len(widths) for widths in lists.values()}) > 1:
        lengths = ", ".join(f"`{name}` has {len(widths)}" for name, widths in lists.items())
        raise SchuBertConfigError(f"All lists need one entry per layer, but {lengths}. Give lists of the same length.")


def _check_model_type(kind: str) -> None:
    if kind not in ("schubert", "bert"):
        raise SchuBertConfigError(f"`model_type` is {kind!r}. {SchuBertConfig.why_refused(kind, 'schubert', 'bert')}")
