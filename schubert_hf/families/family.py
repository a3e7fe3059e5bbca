"""What a family of encoders says of itself: how its modules are named, and what differs from BERT."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from torch import Tensor
from transformers import CONFIG_MAPPING

from ..configuration_schubert import SchuBertConfig, SchuBertConfigError
from ..modeling_schubert import SchuBertLoadError

Tensors = dict[str, Tensor]
Names = dict[str, str]

DECODER, DECODER_BIAS = "cls.predictions.decoder", "cls.predictions.bias"
POSITIONS = "embeddings.position_embeddings.weight"


class Family:
    """A family of encoders that are BERTs under other names. Each file beside this one defines one.

    Names of modules are written without the base model's prefix, and `*` stands for the number of a layer. A module
    that no name covers is called the same on both sides.

    Attributes:
        classes: model type -> what the names of its classes begin with.
        prefix: of the base model, in the names of tensors.
        names: modules of the encoder, there -> here.
        heads: ending of a class's name -> the modules of its head, there -> here. A class that ends in anything else
            has no counterpart.
        without_head: endings of classes that are taken as the encoder alone.
        left_out: modules of heads that have no counterpart.
        transform_act: activation of the masked-LM head where it is fixed; None: that of the encoder.
        has_pooler: whether the encoder alone may have one.
        projects: whether embeddings narrower than the layers may be projected to their width.
    """

    classes: ClassVar[dict[str, str]]
    prefix: ClassVar[str]
    names: ClassVar[Names] = {}
    heads: ClassVar[dict[str, Names]]
    without_head: ClassVar[tuple[str, ...]] = ()
    left_out: ClassVar[tuple[str, ...]] = ()
    transform_act: ClassVar[str | None] = None
    has_pooler: ClassVar[bool] = True
    projects: ClassVar[bool] = False

    # What differs: each family overrides what it needs.

    def adapt_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a config of the family as those of a `SchuBertConfig`; `fields` may be changed."""
        return fields

    def restore_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `adapt_fields`."""
        return fields

    def adapt_tensors(self, tensors: Tensors, config: Any) -> Tensors:
        """Tensors that have our names already, of a model of the family with this config, as SchuBERT's."""
        return tensors

    def restore_tensors(self, tensors: Tensors, config: SchuBertConfig) -> Tensors:
        """The inverse of `adapt_tensors`, for a SchuBERT with this config."""
        return tensors

    # What follows from that.

    def fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """The content of a config.json of the family as the fields of a `SchuBertConfig`.

        Raises:
            SchuBertConfigError: the family's own config class refuses it, or SchuBERT cannot do what it says.
        """
        model_type = given["model_type"]
        try:
            fields = CONFIG_MAPPING[model_type].from_dict(dict(given)).to_dict()
        except Exception as error:  # each check there raises another class
            raise SchuBertConfigError(f"The config of a {model_type!r} is not valid: {error}") from error
        for name in ("use_cache", "transformers_version"):
            fields.pop(name, None)
        named = [self.our_class(name) or name for name in fields.get("architectures") or ()]
        fields |= {"architectures": named or None, "model_type": SchuBertConfig.model_type, "family": model_type}
        if not self.has_pooler:
            fields["add_pooling_layer"] = False
        return self.adapt_fields(fields)

    def our_class(self, name: str) -> str | None:
        """The name of the SchuBERT class with the head of one of the family's classes; None where there is none."""
        for start in sorted(self.classes.values(), key=len, reverse=True):
            suffix = name.removeprefix(start)
            if name != suffix:
                suffix = "Model" if suffix in self.without_head else suffix
                return f"SchuBert{suffix}" if suffix in self.heads else None
        return None

    def their_class(self, name: str, model_type: str) -> str | None:
        """The inverse of `our_class`."""
        suffix = name.removeprefix("SchuBert")
        return self.classes[model_type] + suffix if suffix in self.heads else None

    def tensors(self, tensors: Tensors, theirs: str, config: Any) -> Tensors:
        """A state dict of the class named `theirs`, as SchuBERT's.

        Raises:
            SchuBertLoadError: SchuBERT cannot compute what the class does with them.
        """
        suffix = (self.our_class(theirs) or "").removeprefix("SchuBert")
        names = {**self.names, **self.heads[suffix]}
        renamed = {
            self.our_name(name, names): tensor
            for name, tensor in tensors.items()
            if not name.startswith(tuple(f"{module}." for module in self.left_out))
        }
        trained = f"{DECODER}.bias" in renamed  # the weight is that of the words, with or without a head
        if trained and self.transform_act and self.transform_act != config.hidden_act:
            raise SchuBertLoadError(
                f"`hidden_act` is {config.hidden_act!r}, but the masked-LM head of a {config.model_type!r} always "
                f"uses {self.transform_act!r}; a SchuBERT uses one for both. Load it without: `SchuBertModel`."
            )
        if trained and DECODER_BIAS not in renamed:
            renamed[DECODER_BIAS] = renamed[f"{DECODER}.bias"].clone()
        return self.adapt_tensors(renamed, config)

    def tensors_back(self, tensors: Tensors, theirs: str, config: SchuBertConfig) -> Tensors:
        """The inverse of `tensors`, for the class named `theirs` of the family."""
        suffix = (self.our_class(theirs) or "").removeprefix("SchuBert")
        back = {here: there for there, here in {**self.names, **self.heads[suffix]}.items()}
        plain = {name.removeprefix("bert."): tensor.detach() for name, tensor in tensors.items()}
        if not self.has_pooler and "pooler.dense" not in back:
            plain = {name: tensor for name, tensor in plain.items() if not name.startswith("pooler.")}
        if DECODER in back and "cls.predictions" not in back:  # the decoder has the bias, and nothing else has it
            plain.pop(DECODER_BIAS, None)
        restored = self.restore_tensors(plain, config)
        prefix = "" if suffix == "Model" else f"{self.prefix}."
        return {
            (prefix if _of_encoder(name) and not self._in_head(name, suffix) else "") + rename(name, back): tensor
            for name, tensor in restored.items()
        }

    def our_name(self, name: str, names: Names | None = None) -> str:
        """What a tensor of the family is called here; by default whatever head it may be of."""
        if names is None:
            names = {there: here for table in (self.names, *self.heads.values()) for there, here in table.items()}
        ours = rename(name.removeprefix(f"{self.prefix}."), names)
        return f"bert.{ours}" if _of_encoder(ours) else ours

    def _in_head(self, name: str, suffix: str) -> bool:
        """Whether one of our tensors belongs to the head there, such as a pooler that is the head's first layer."""
        return any(name.startswith(f"{here}.") for here in self.heads[suffix].values())


def _of_encoder(name: str) -> bool:
    return name.startswith(("embeddings.", "embeddings_project.", "encoder.", "pooler."))


def rename(name: str, names: Names) -> str:
    """A tensor's name with its module's name exchanged, by the longest name that covers it."""
    for there in sorted(names, key=len, reverse=True):
        pattern = re.escape(there).replace(r"\*", r"(\d+)")
        if match := re.match(rf"{pattern}(?=\.)", name):
            layer = match[1] if match.groups() else ""
            return names[there].replace("*", layer) + name[match.end() :]
    return name
