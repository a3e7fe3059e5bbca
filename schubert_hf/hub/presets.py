"""The pages of the shapes that the paper prints (Khetan & Karnin, ACL 2020, arXiv 2005.06628).

The results are the paper's, not ours.
"""

from __future__ import annotations

from huggingface_hub import ModelCardData

from .inspection import BERT_BASE, Inspection, inspect_preset
from .page import TAGS, fill_template, wrap_command
from .tables import Table

DESCRIPTIONS = {
    "bert-base": "BERT-base uncased: 12 layers, h 768, f 3072, a 12, k = v = 64",
    "schubert-99m": "schuBERT-all: f grows with depth (slanted), v shrinks in the first layers, h stays",
    "schubert-88m": "schuBERT-all: as 99m, with h 756",
    "schubert-77m": "schuBERT-h: h 544, all else as BERT-base",
    "schubert-66m": "schuBERT-h: h 466, all else as BERT-base",
    "schubert-55m": "schuBERT-h: h 390, all else as BERT-base",
    "schubert-43m": "schuBERT-h: h 304, all else as BERT-base; 6.6 points over a BERT of 3 layers",
    "schubert-33m": "schuBERT-h: h 234, all else as BERT-base",
}

# The columns of the paper's tables, and their rows by preset. It has no row for 33M.
COLUMNS = ("SQuAD 1.1 F1/EM", "SQuAD 2.0 F1/EM", "MNLI", "MRPC", "SST-2", "RTE", "average")
RESULTS: dict[str, tuple[str, ...]] = {
    BERT_BASE: ("90.2/83.3", "80.4/77.6", "84.1", "87.8", "92.1", "71.4", "84.3"),
    "schubert-99m": ("89.8/83.0", "80.1/77.6", "83.9", "87.5", "92.4", "71.1", "84.1"),
    "schubert-88m": ("89.4/82.5", "79.8/77.1", "84.1", "87.6", "92.3", "69.7", "83.8"),
    "schubert-77m": ("88.8/81.6", "78.6/76.3", "84.0", "87.2", "91.5", "68.9", "83.2"),
    "schubert-66m": ("88.1/80.7", "78.4/74.7", "83.8", "86.7", "91.7", "68.5", "82.9"),
    "schubert-55m": ("87.6/80.3", "77.4/74.6", "83.5", "86.3", "90.9", "66.7", "82.1"),
    "schubert-43m": ("86.7/79.0", "76.9/73.8", "83.4", "84.8", "90.9", "67.3", "81.7"),
}

BASE = "google-bert/bert-base-uncased"
TEXT, TEXT_CONFIG = "wikimedia/wikipedia", "20231101.en"

# The paper trains alphas for 1/1000 of the pretraining steps and fine-tunes for 1/20; BERT was pretrained for a
# million steps of 256 examples. Both are shared among the rounds, whose number the paper does not give.
ROUNDS = 5
ALPHA_STEPS, RECOVERY_STEPS, BATCH = 1_000_000 // 1000 // ROUNDS, 1_000_000 // 20 // ROUNDS, 256


def variant(preset: str) -> str:
    """schuBERT-all prunes h, f, a, k and v together, schuBERT-h the hidden size alone."""
    return DESCRIPTIONS[preset].partition(":")[0]


def render_preset(preset: str) -> str:
    """The page of one of the paper's shapes, of which nobody has trained a model here: nothing is measured."""
    inspection = inspect_preset(preset)
    paper = None
    if preset in RESULTS:
        rows = [[BERT_BASE, *RESULTS[BERT_BASE]], [f"{variant(preset)} ({preset})", *RESULTS[preset]]]
        paper = Table(["", *COLUMNS], rows)
    metadata = ModelCardData(
        library_name="transformers", language="en", base_model=BASE, base_model_relation="finetune", tags=TAGS
    )
    return fill_template(
        inspection,
        metadata,
        now="this shape",
        preset=preset,
        config=inspection.config,
        command=command(inspection),
        description=DESCRIPTIONS[preset],
        rounds=ROUNDS,
        variant=variant(preset),
        paper_table=paper,
    )


def command(inspection: Inspection) -> str:
    """Prunes BERT-base to this shape's exact number of parameters."""
    target = inspection.config.num_parameters("SchuBertForPreTraining")  # what the checkpoint of BERT-base holds
    hidden_alone = variant(inspection.name) == "schuBERT-h"
    return wrap_command(
        f"accelerate launch examples/prune.py --model {BASE} --dataset {TEXT} --dataset-config {TEXT_CONFIG} "
        f"--target {target} --dimensions {'h' if hidden_alone else 'hfakv'} --multiple-of h=2,f=2 --rounds {ROUNDS} "
        f"--alpha-steps {ALPHA_STEPS} --recovery-steps {RECOVERY_STEPS} --batch-size {BATCH} "
        f"--output-dir {inspection.name}"
    )
