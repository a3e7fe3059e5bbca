"""SchuBERT in PyTorch: BERT with a width of its own in every layer.

Khetan & Karnin, *schuBERT: Optimizing Elements of BERT*, ACL 2020, arXiv 2005.06628. Modules and parameters are named
as in BERT, so a BERT state dict fits as it is. Shapes are written in the paper's letters for the widths of one layer:
h hidden, f filters, a heads, k key and query, v value, and e for the embeddings; B is the batch, S the sequence.

This file is copied into every published repository. It imports nothing but torch, transformers, huggingface_hub and
the configuration beside it.
"""
# mypy: allow-subclassing-any, allow-untyped-calls, allow-untyped-decorators, no-warn-return-any

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.bert.modeling_bert import BertForPreTrainingOutput, eager_attention_forward
from transformers.utils import CONFIG_NAME
from transformers.utils.generic import can_return_tuple
from transformers.utils.hub import cached_file, extract_commit_hash
from transformers.utils.output_capturing import capture_outputs

from .configuration_schubert import SchuBertConfig

# Arguments of `from_pretrained` that say where a checkpoint is.
FINDING = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")

ModelT = TypeVar("ModelT", bound="SchuBertPreTrainedModel")


class SchuBertLoadError(ValueError):
    """Weights that do not make the model asked for: tensors missing, foreign or of another shape; no safetensors."""


def read_config(name_or_path: str | os.PathLike[str], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json holds, and `given`, the arguments of `from_pretrained`, with the commit that it is of.

    So everything else is read from the same commit, and the Hub is asked once.
    """
    place = {name: given[name] for name in FINDING if name in given}
    folder = Path(name_or_path, place.get("subfolder") or "")
    if folder.is_dir() and not (folder / CONFIG_NAME).is_file():
        raise OSError(f"the folder holds no {CONFIG_NAME}.")  # transformers would look for it on the Hub
    path = cached_file(name_or_path, CONFIG_NAME, **place)
    try:
        content = {**PreTrainedConfig.get_config_dict(path)[0]}
    except TypeError as error:
        raise OSError(f"{CONFIG_NAME} holds no JSON object.") from error
    commit = extract_commit_hash(path, None)
    return content, given if commit is None else {**given, "revision": commit}


def resize_stream(x: torch.Tensor, width: int) -> torch.Tensor:
    """The first `width` channels of the last dimension: the tail is dropped, or zeros are appended."""
    channels = x.shape[-1]
    if width < channels:
        return x[..., :width]
    return nn.functional.pad(x, (0, width - channels)) if width > channels else x


class BiasOnly(nn.Module):
    """What is left of `Linear(0, width)`, without its tensor of size zero: the bias, whatever comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.new_zeros(*hidden_states.shape[:-1], 1) + self.bias  # (B, S, 0) -> (B, S, width)


class SchuBertEmbeddings(nn.Module):
    """Word, position and segment embeddings, of width e: the first layer's, unless a projection leads there."""

    position_ids: torch.Tensor

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.word_embeddings: nn.Module = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.padding = None if config.padding_takes_positions else config.pad_token_id
        positions = torch.arange(config.max_position_embeddings).expand((1, -1))  # (1, max positions)
        self.register_buffer("position_ids", positions, persistent=False)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)  # (B, S, e)
        shape = inputs_embeds.shape[:-1]
        if position_ids is None and input_ids is not None and self.padding is not None:
            position_ids = (input_ids.ne(self.padding).cumsum(1) - 1).clamp(min=0)  # (B, S)
        elif position_ids is None:
            position_ids = self.position_ids[:, : shape[1]]
        if token_type_ids is None or self.token_type_embeddings.num_embeddings == 1:
            token_type_ids = torch.zeros(shape, dtype=torch.long, device=inputs_embeds.device)

        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))


class SchuBertSelfAttention(nn.Module):
    """a heads. `query`, `key`: h -> a k; `value`: h -> a v. With 0 heads the three are None, nothing is computed."""

    def __init__(self, config: SchuBertConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_attention_heads = config.head_counts[layer_idx]
        self.key_query_size = config.key_query_sizes[layer_idx]
        self.value_size = config.value_sizes[layer_idx]
        self.scaling = self.key_query_size**-0.5
        self.is_causal = False  # sdpa and flash take a missing attribute for True

        hidden, heads = config.hidden_sizes[layer_idx], self.num_attention_heads
        self.query = nn.Linear(hidden, heads * self.key_query_size) if heads else None
        self.key = nn.Linear(hidden, heads * self.key_query_size) if heads else None
        self.value = nn.Linear(hidden, heads * self.value_size) if heads else None
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        eager = attention is eager_attention_forward
        if self.query is None or self.key is None or self.value is None:
            batch, length = hidden_states.shape[:-1]
            # No kernel takes 0 heads. The weights are given where others give theirs: recording counts layers by them.
            return hidden_states[..., :0], hidden_states.new_zeros(batch, 0, length, length) if eager else None

        input_shape = hidden_states.shape[:-1]
        heads_first = (*input_shape, self.num_attention_heads, -1)
        query = self.query(hidden_states).view(heads_first).transpose(1, 2)  # (B, a, S, k)
        key = self.key(hidden_states).view(heads_first).transpose(1, 2)  # (B, a, S, k)
        value = self.value(hidden_states).view(heads_first).transpose(1, 2)  # (B, a, S, v)
        if not eager and self.key_query_size != self.value_size:
            # Fast kernels want k == v (flash attention crops v without a word, sdpa on CPU falls back to a slow one).
            # Zero channels change neither scores nor, cropped again below, values; the scale is that of the true k.
            width = max(self.key_query_size, self.value_size)
            query, key, value = (resize_stream(x, width) for x in (query, key, value))

        attn_output, attn_weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout.p if self.dropout.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        attn_output = resize_stream(attn_output, self.value_size)  # (B, S, a, v)
        return attn_output.reshape(*input_shape, -1).contiguous(), attn_weights


class SchuBertSublayerOutput(nn.Module):
    """The end of a sublayer: projection of its units (a v or f) -> h, with dropout, residual and LayerNorm."""

    def __init__(self, config: SchuBertConfig, units: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(units, hidden) if units else BiasOnly(hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.dense(hidden_states))
        return self.LayerNorm(hidden_states + input_tensor)


class SchuBertAttention(nn.Module):
    def __init__(self, config: SchuBertConfig, layer_idx: int) -> None:
        super().__init__()
        self.self = SchuBertSelfAttention(config, layer_idx)
        values = config.head_counts[layer_idx] * config.value_sizes[layer_idx]
        self.output = SchuBertSublayerOutput(config, values, config.hidden_sizes[layer_idx])

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        attention_output, _ = self.self(hidden_states, attention_mask, **kwargs)
        return self.output(attention_output, hidden_states)


class SchuBertIntermediate(nn.Module):
    """The filters, h -> f, and their activation. With 0 filters `dense` is None."""

    def __init__(self, config: SchuBertConfig, layer_idx: int) -> None:
        super().__init__()
        hidden, filters = config.hidden_sizes[layer_idx], config.filter_sizes[layer_idx]
        self.dense = nn.Linear(hidden, filters) if filters else None
        self.intermediate_act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.dense is None:
            return hidden_states[..., :0]
        return self.intermediate_act_fn(self.dense(hidden_states))  # (B, S, f)


class SchuBertLayer(GradientCheckpointingLayer):
    """One post-LayerNorm layer, on the first `hidden_sizes[layer_idx]` channels of the stream."""

    def __init__(self, config: SchuBertConfig, layer_idx: int) -> None:
        super().__init__()
        self.hidden_size = config.hidden_sizes[layer_idx]
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.attention = SchuBertAttention(config, layer_idx)
        self.intermediate = SchuBertIntermediate(config, layer_idx)
        self.output = SchuBertSublayerOutput(config, config.filter_sizes[layer_idx], self.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        hidden_states = resize_stream(hidden_states, self.hidden_size)  # (B, S, h)
        attention_output = self.attention(hidden_states, attention_mask, **kwargs)
        if self.chunk_size_feed_forward == 0:
            return self.feed_forward_chunk(attention_output)
        # The last chunk may be shorter; transformers' `apply_chunking_to_forward` refuses that.
        chunks = attention_output.split(self.chunk_size_feed_forward, dim=1)
        return torch.cat([self.feed_forward_chunk(chunk) for chunk in chunks], dim=1)

    def feed_forward_chunk(self, attention_output: torch.Tensor) -> torch.Tensor:
        return self.output(self.intermediate(attention_output), attention_output)


class SchuBertEncoder(nn.Module):
    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([SchuBertLayer(config, i) for i in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        for layer in self.layer:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class SchuBertPooler(nn.Module):
    """act(W x + b) of the first token's state, at the last layer's width; BERT's activation is tanh."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_sizes[-1], config.hidden_sizes[-1])
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states[:, 0]))


class SchuBertPredictionHeadTransform(nn.Module):
    """From the last layer's width to that of the embeddings, which the decoder shares."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_sizes[-1], config.embedding_size)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.transform_act_fn(self.dense(hidden_states)))


class SchuBertLMPredictionHead(nn.Module):
    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__()
        self.transform = SchuBertPredictionHeadTransform(config)
        # The weight is the word embeddings', the bias the one below, unless `tie_word_embeddings` is off.
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size, bias=True)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(hidden_states))  # (B, S, vocabulary)


class SchuBertPreTrainedModel(PreTrainedModel):
    """What all SchuBERT classes share: initialisation, loading from BERT, and loading that is whole or an error."""

    config: SchuBertConfig
    config_class = SchuBertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    accepts_loss_kwargs = False  # the losses are plain means, so that Trainer divides by its accumulation steps
    _no_split_modules = ["SchuBertEmbeddings", "SchuBertLayer"]
    _keys_to_ignore_on_load_unexpected = [r"position_ids$"]  # the first BERTs stored them
    _can_record_outputs = {"hidden_states": SchuBertLayer, "attentions": SchuBertSelfAttention}

    def __init__(self, config: SchuBertConfig, *inputs: Any, **kwargs: Any) -> None:
        if config.model_type != "schubert":  # by type and not by class: remote code makes classes of its own
            raise SchuBertLoadError(
                f"`config` is a {type(config).__name__} of model type {config.model_type!r}, allowed is 'schubert'. "
                "Write `SchuBertConfig.from_dict(config.to_dict())` for a config, or `from_dense` for a model."
            )
        config.validate()
        super().__init__(config, *inputs, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BiasOnly | SchuBertLMPredictionHead):
            init.zeros_(module.bias)
        elif isinstance(module, SchuBertEmbeddings):
            positions = module.position_ids.shape[-1]
            init.copy_(module.position_ids, torch.arange(positions).expand((1, -1)))

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint of SchuBERT, BERT, or one of `SchuBertConfig.families`, converted without loss.

        As in transformers, a head or pooler that the checkpoint lacks is freshly initialised, with transformers'
        warning, and one that this class lacks is left out; so is what a class of your own adds. Anything else that
        does not fit is an error. Only safetensors are read: nothing is unpickled. Arguments are those of
        transformers' `from_pretrained`.

        Raises:
            SchuBertConfigError: the checkpoint is of another family.
            SchuBertLoadError: tensors are missing, foreign or of another shape, or there are no safetensors.
        """
        source = "`state_dict`" if pretrained_model_name_or_path is None else f"`{pretrained_model_name_or_path}`"
        if not kwargs.setdefault("use_safetensors", True):
            raise SchuBertLoadError(f"`use_safetensors` is False, allowed is True. {_NO_SAFETENSORS}")
        output_loading_info = kwargs.pop("output_loading_info", False)
        may_differ = kwargs.pop("ignore_mismatched_sizes", False)
        try:
            kwargs = cls._converted(pretrained_model_name_or_path, kwargs)
            model_and_info: Any = super().from_pretrained(
                None if "state_dict" in kwargs else pretrained_model_name_or_path,
                *model_args,
                ignore_mismatched_sizes=True,  # so that they can be named below
                output_loading_info=True,
                **kwargs,
            )
        except OSError as error:
            absent = any(words in str(error) for words in ("no file named", "not appear to have a file named"))
            if absent and ".safetensors" in str(error):
                raise SchuBertLoadError(f"{source} has no safetensors weights. {_NO_SAFETENSORS}") from error
            raise
        model, loaded = model_and_info
        if pretrained_model_name_or_path is not None:  # transformers is not told it where a model was converted
            model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        _check_loaded(model, loaded, source, may_differ)
        return (model, loaded) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save as in transformers. If the config has an `auto_map`, the two Python files that it names are added.

        A published checkpoint that was fine-tuned thus still opens where this package is not installed.
        """
        if is_main_process and getattr(self.config, "auto_map", None) and not Path(save_directory).is_file():
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            custom_object_save(SchuBertPreTrainedModel, save_directory)  # before what may upload the folder
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        """What `save_pretrained(push_to_hub=True)` uploads only where it has changed: not the Python files."""
        times = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in times.items() if not name.endswith(".py")}

    @classmethod
    def from_dense(cls: type[ModelT], dense: PreTrainedModel, **kwargs: Any) -> ModelT:
        """Build this class from a model in memory, which is left as it is and shares no tensor with the result.

        Args:
            dense: a BERT, or a model of one of `SchuBertConfig.families`, with any head. What it has no tensors for
                (a head, a pooler) is freshly initialised, with transformers' warning.
            **kwargs: config fields, e.g. `num_labels`, and arguments of `from_pretrained`.

        Returns:
            The model, with the dtype, device, mode and attention implementation of `dense`.

        Raises:
            SchuBertConfigError: `dense` is a decoder or has relative positions.
            SchuBertLoadError: `dense` is of another family, or is not whole.
        """
        family = dense.config.model_type
        if family in cls.config_class.families:
            state_dict = cls.config_class.families[family].tensors(dense)
        elif family == "bert":
            state_dict = {name: tensor.detach().clone() for name, tensor in dense.state_dict().items()}
        else:
            raise SchuBertLoadError(f"`dense` is a {family!r} model. {cls.config_class.why_refused(family, 'bert')}")
        kwargs = cls._arguments(dense, state_dict, kwargs)
        model = cls.from_pretrained(None, **kwargs).to(dense.device).train(dense.training)
        model.name_or_path = dense.name_or_path
        return model

    from_bert = from_dense  # its name when BERT was the only family

    @classmethod
    def _arguments(
        cls, dense: PreTrainedModel, state_dict: dict[str, torch.Tensor], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Arguments of `from_pretrained` that make this class from a model's tensors."""
        if issubclass(cls, SchuBertModel):
            has_pooler = any(name.removeprefix("bert.").startswith("pooler.") for name in state_dict)
            kwargs = {"add_pooling_layer": has_pooler, **kwargs}
        kwargs = {"dtype": dense.dtype, "attn_implementation": dense.config._attn_implementation, **kwargs}
        if not isinstance(kwargs.get("config"), cls.config_class):
            fields = dense.config.to_diff_dict()
            config, kwargs = cls.config_class.from_dict(fields, return_unused_kwargs=True, **kwargs)
            kwargs = {**kwargs, "config": config}
        return {**kwargs, "state_dict": state_dict}

    @classmethod
    def _converted(cls, name: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `from_pretrained`, with the tensors of a checkpoint of another family read."""
        if name is None or not cls.config_class.families:
            return kwargs
        content, kwargs = read_config(name, kwargs)
        family = cls.config_class.families.get(str(content.get("model_type")))
        if family is None:
            return kwargs
        cls.config_class.from_dict(content)  # refuses before weights are read
        dense, state_dict, kwargs = family.read(cls.__name__, name, content, kwargs)
        return cls._arguments(dense, state_dict, kwargs)


_NO_SAFETENSORS = (
    "A pytorch_model.bin is not read, since that unpickles what it holds. If you trust it, convert it once: "
    "`BertForPreTraining.from_pretrained(name).save_pretrained(folder)`, then load the folder."
)

BODY = ("embeddings", "embeddings_project", "encoder")
# The modules that may be freshly initialised, as a whole, or left out: all that is not the body.
TASK_MODULES = ("pooler.", "cls.predictions.", "cls.seq_relationship.", "classifier.", "qa_outputs.")


def _task_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """`TASK_MODULES`, and what a class of the user's own has beside the body."""
    own = [f"{name}." for name, _ in model.named_children() if name not in (*BODY, "bert")]
    return (*TASK_MODULES, *own, *(name for name, _ in model.named_parameters(recurse=False)))


def _check_loaded(model: PreTrainedModel, loaded: dict[str, Any], source: str, may_differ: bool) -> None:
    """Raise `SchuBertLoadError` if `model` was not filled, save for whole task modules."""

    def plain(names: Any) -> set[str]:
        return {name.removeprefix("bert.") for name in names}

    expected, tied = plain(model.state_dict()), plain(model.all_tied_weights_keys)
    missing, unexpected = plain(loaded["missing_keys"]), plain(loaded["unexpected_keys"])
    shapes = {(name.removeprefix("bert."), tuple(got), tuple(want)) for name, got, want in loaded["mismatched_keys"]}
    differ = {f"{name} {got} for {want}" for name, got, want in shapes}
    for module in _task_modules(model):
        own = {name for name in expected if name.startswith(module)}
        if own - tied <= missing:
            missing -= own
        if not own:
            unexpected = {name for name in unexpected if not name.startswith(module)}
        if may_differ:
            differ = {name for name in differ if not name.startswith(module)}
    saved = model.config.architectures or ["SchuBert"]
    if model.config.family == "bert" and not any(name.startswith("SchuBert") for name in saved):
        # The head of a class that is not known here; transformers warns that it is left out.
        unexpected = {name for name in unexpected if name.partition(".")[0] in BODY}

    wrong = {"missing": missing, "left over": unexpected, "of another shape": differ}
    if any(wrong.values()):
        found = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names)
        raise SchuBertLoadError(
            f"{source} does not make a {type(model).__name__}. {found}. Load a whole BERT or SchuBERT checkpoint with "
            "the config.json it was saved with; `ignore_mismatched_sizes=True` starts a head of another size afresh."
        )


class SchuBertModel(SchuBertPreTrainedModel):
    """The encoder. `last_hidden_state`: (B, S, hidden_sizes[-1]), `pooler_output`: (B, hidden_sizes[-1])."""

    def __init__(self, config: SchuBertConfig, add_pooling_layer: bool | None = None) -> None:
        super().__init__(config)
        if add_pooling_layer is None:
            add_pooling_layer = config.add_pooling_layer
        self.embeddings = SchuBertEmbeddings(config)
        first = config.hidden_sizes[0]
        self.embeddings_project = nn.Linear(config.embedding_size, first) if config.project_embeddings else None
        self.encoder = SchuBertEncoder(config)
        self.pooler = SchuBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = value

    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | BaseModelOutputWithPooling:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        if self.embeddings_project is not None:
            hidden_states = self.embeddings_project(hidden_states)  # (B, S, e) -> (B, S, h)
        mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
        encoder_outputs = self.encoder(hidden_states, mask, position_ids=position_ids, **kwargs)
        sequence_output = encoder_outputs.last_hidden_state
        pooled_output = self.pooler(sequence_output) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=sequence_output, pooler_output=pooled_output)


class _MaskedLMMixin:
    """Access to the decoder, for the two classes that tie it to the word embeddings."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    cls: Any

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias


class SchuBertForPreTraining(_MaskedLMMixin, SchuBertPreTrainedModel):
    """Masked language modelling and next sentence prediction together."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=True)
        predictions = SchuBertLMPredictionHead(config)
        self.cls = nn.ModuleDict(
            {"predictions": predictions, "seq_relationship": nn.Linear(config.hidden_sizes[-1], 2)}
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        next_sentence_label: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | BertForPreTrainingOutput:
        """`labels`: (B, S), -100 is ignored; `next_sentence_label`: (B,), 0 next, 1 random. The loss needs both."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        predictions = self.cls["predictions"](outputs.last_hidden_state)
        relationship = self.cls["seq_relationship"](outputs.pooler_output)

        loss = None
        if labels is not None and next_sentence_label is not None:
            masked_lm_loss = cross_entropy(predictions.view(-1, self.config.vocab_size), labels.view(-1))
            next_sentence_loss = cross_entropy(relationship.view(-1, 2), next_sentence_label.view(-1))
            loss = masked_lm_loss + next_sentence_loss

        return BertForPreTrainingOutput(
            loss=loss,
            prediction_logits=predictions,
            seq_relationship_logits=relationship,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SchuBertForMaskedLM(_MaskedLMMixin, SchuBertPreTrainedModel):
    """Masked language modelling."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=False)
        self.cls = nn.ModuleDict({"predictions": SchuBertLMPredictionHead(config)})
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | MaskedLMOutput:
        """`labels`: (B, S), -100 is ignored."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.cls["predictions"](outputs.last_hidden_state)

        loss = None
        if labels is not None:
            loss = cross_entropy(logits.view(-1, self.config.vocab_size), labels.view(-1))

        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class SchuBertForNextSentencePrediction(SchuBertPreTrainedModel):
    """Does the second text follow the first?"""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=True)
        self.cls = nn.ModuleDict({"seq_relationship": nn.Linear(config.hidden_sizes[-1], 2)})
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | NextSentencePredictorOutput:
        """`labels`: (B,), 0 is next, 1 is random."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.cls["seq_relationship"](outputs.pooler_output)
        loss = cross_entropy(logits.view(-1, 2), labels.view(-1)) if labels is not None else None
        return NextSentencePredictorOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def classifier_dropout(config: SchuBertConfig) -> nn.Dropout:
    """The dropout in front of a classifier: `classifier_dropout`, or the encoder's where that is None."""
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)


class SchuBertForSequenceClassification(SchuBertPreTrainedModel):
    """Classification or regression of the whole input, e.g. GLUE."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = SchuBertModel(config, add_pooling_layer=True)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | SequenceClassifierOutput:
        """`labels`: (B,), or (B, num_labels) for several at once; one label means regression."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))

        loss = None
        if labels is not None:
            # As BERT does, the kind of problem is read off the first labels and kept in the config.
            if self.config.problem_type is None:
                if self.num_labels == 1:
                    self.config.problem_type = "regression"
                elif labels.dtype in (torch.long, torch.int):
                    self.config.problem_type = "single_label_classification"
                else:
                    self.config.problem_type = "multi_label_classification"
            if self.config.problem_type == "regression":
                one = self.num_labels == 1
                scores, targets = (logits.squeeze(), labels.squeeze()) if one else (logits, labels)
                loss = nn.functional.mse_loss(scores, targets)
            elif self.config.problem_type == "single_label_classification":
                loss = cross_entropy(logits.view(-1, self.num_labels), labels.view(-1))
            else:
                loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)

        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class SchuBertForMultipleChoice(SchuBertPreTrainedModel):
    """Which of several continuations? Inputs have the shape (B, choices, S)."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=True)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | MultipleChoiceModelOutput:
        """All inputs (B, choices, S), `inputs_embeds` (B, choices, S, e); `labels`: (B,)."""
        inputs = inputs_embeds if input_ids is None else input_ids
        if inputs is None:
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")

        def flat(inputs: torch.Tensor | None) -> torch.Tensor | None:
            return None if inputs is None else inputs.flatten(0, 1)  # (B, choices, ...) -> (B choices, ...)

        outputs = self.bert(
            flat(input_ids),
            attention_mask=flat(attention_mask),
            token_type_ids=flat(token_type_ids),
            position_ids=flat(position_ids),
            inputs_embeds=flat(inputs_embeds),
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, inputs.shape[1])
        loss = cross_entropy(logits, labels) if labels is not None else None
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class SchuBertForTokenClassification(SchuBertPreTrainedModel):
    """A label for every token, e.g. named entities."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = SchuBertModel(config, add_pooling_layer=False)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | TokenClassifierOutput:
        """`labels`: (B, S), -100 is ignored."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = cross_entropy(logits.view(-1, self.num_labels), labels.view(-1)) if labels is not None else None
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class SchuBertForQuestionAnswering(SchuBertPreTrainedModel):
    """Where an answer starts and ends, e.g. SQuAD."""

    def __init__(self, config: SchuBertConfig) -> None:
        super().__init__(config)
        self.bert = SchuBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_sizes[-1], 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | QuestionAnsweringModelOutput:
        """`start_positions`, `end_positions`: (B,); one beyond the sequence is ignored."""
        outputs = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)  # (B, S) each

        loss = None
        if start_positions is not None and end_positions is not None:
            beyond = start_logits.shape[1]
            starts, ends = (x.view(-1).clamp(0, beyond) for x in (start_positions, end_positions))
            start_loss = cross_entropy(start_logits, starts, ignore_index=beyond)
            end_loss = cross_entropy(end_logits, ends, ignore_index=beyond)
            loss = (start_loss + end_loss) / 2

        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "SchuBertForMaskedLM",
    "SchuBertForMultipleChoice",
    "SchuBertForNextSentencePrediction",
    "SchuBertForPreTraining",
    "SchuBertForQuestionAnswering",
    "SchuBertForSequenceClassification",
    "SchuBertForTokenClassification",
    "SchuBertLayer",
    "SchuBertLoadError",
    "SchuBertModel",
    "SchuBertPreTrainedModel",
]
