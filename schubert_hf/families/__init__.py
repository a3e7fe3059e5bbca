"""The families of encoders that become SchuBERT with the same outputs. Nothing else in the library knows of them."""

from __future__ import annotations

from ..configuration_schubert import SchuBertConfig
from .bert import Bert
from .distilbert import DistilBert
from .electra import Electra
from .family import Family
from .opening import Opener
from .others import REFUSED, refusal
from .roberta import Roberta

FAMILIES: dict[str, Family] = {
    model_type: family for family in (Bert(), Roberta(), DistilBert(), Electra()) for model_type in family.classes
}


def register_families() -> None:
    """Lets the shipped classes read the configs and checkpoints of every family; on their own they know BERT's."""
    SchuBertConfig.families.update({name: Opener(family) for name, family in FAMILIES.items() if name != "bert"})
    SchuBertConfig.refused.update({name: refusal(name) for name in REFUSED})
