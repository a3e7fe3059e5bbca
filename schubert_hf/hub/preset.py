"""What the page of one of the paper's shapes says: everything from the shape, nothing measured."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from ..cost import format_size
from .card import TAGS, common, wrap_command
from .inspection import Inspection, parameter_parts
from .paper import variant

BASE = "google-bert/bert-base-uncased"
TEXT, TEXT_CONFIG = "wikimedia/wikipedia", "20231101.en"

# Khetan & Karnin 2020: alphas for 1/1000 of the pretraining steps, fine-tuning for 1/20; BERT was pretrained for a
# million steps of 256 examples. Shared among the rounds, whose number the paper does not give.
ROUNDS = 5
ALPHA_STEPS, RECOVERY_STEPS, BATCH = 1_000_000 // 1000 // ROUNDS, 1_000_000 // 20 // ROUNDS, 256


def preset_data(inspection: Inspection) -> dict[str, Any]:
    """What the template needs of a shape that nobody has trained here."""
    parameters, before = inspection.parameters.total, (inspection.base_parameters or inspection.parameters).total
    metadata = ModelCardData(
        library_name="transformers",
        language="en",
        base_model=BASE,
        base_model_relation="finetune",
        tags=[*TAGS, "arxiv:2005.06628"],
    )
    return {
        "card_data": metadata.to_yaml(),
        **common(inspection, "this shape"),
        "preset": inspection.name,
        "config": inspection.config,
        "provenance": {},
        "command": command(inspection),
        "command_notes": _notes(inspection),
        "summary": (
            f"The shape of {variant(inspection.name)} at **{format_size(parameters)} parameters**, "
            f"{parameters / before:.1%} of BERT-base: one of the architectures that Khetan & Karnin (2020) print."
        ),
        "limits": ["A shape is not a model: until somebody prunes to it, its quality is the paper's word."],
    }


def command(inspection: Inspection) -> str:
    """Prunes BERT-base to this shape's exact number of parameters."""
    head = "SchuBertForPreTraining"  # what the checkpoint of BERT-base holds
    target = parameter_parts(inspection.config, head).total
    hidden_alone = variant(inspection.name) == "schuBERT-h"
    return wrap_command(
        f"accelerate launch examples/prune.py --model {BASE} --dataset {TEXT} --dataset-config {TEXT_CONFIG} "
        f"--target {target} --dimensions {'h' if hidden_alone else 'hfakv'} --multiple-of h=2,f=2 --rounds {ROUNDS} "
        f"--alpha-steps {ALPHA_STEPS} --recovery-steps {RECOVERY_STEPS} --batch-size {BATCH} "
        f"--output-dir {inspection.name}"
    )


def _notes(inspection: Inspection) -> str:
    notes = (
        f"The target is the shape's parameters with both pretraining heads. Steps are the paper's, shared among "
        f"{ROUNDS} rounds; the number of rounds, learning rates and the strength of the penalty are ours, since the "
        "paper does not give them. "
    )
    if variant(inspection.name) == "schuBERT-h":
        return notes + "As only the hidden size is pruned, the result has exactly this shape."
    return notes + "The search decides on the widths, so they come near those above and need not equal them."
