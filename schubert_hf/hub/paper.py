"""The paper's own results (Khetan & Karnin, ACL 2020, arXiv 2005.06628), for the pages of its shapes. Not ours."""

from __future__ import annotations

TASKS = ("SQuAD 1.1 F1/EM", "SQuAD 2.0 F1/EM", "MNLI", "MRPC", "SST-2", "RTE", "average")

BERT_BASE = ("90.2/83.3", "80.4/77.6", "84.1", "87.8", "92.1", "71.4", "84.3")

# By preset: the row of its variant in the paper's tables, in the order of TASKS. For 33M
# there is none.
RESULTS: dict[str, tuple[str, ...]] = {
    "schubert-99m": ("89.8/83.0", "80.1/77.6", "83.9", "87.5", "92.4", "71.1", "84.1"),
    "schubert-88m": ("89.4/82.5", "79.8/77.1", "84.1", "87.6", "92.3", "69.7", "83.8"),
    "schubert-77m": ("88.8/81.6", "78.6/76.3", "84.0", "87.2", "91.5", "68.9", "83.2"),
    "schubert-66m": ("88.1/80.7", "78.4/74.7", "83.8", "86.7", "91.7", "68.5", "82.9"),
    "schubert-55m": ("87.6/80.3", "77.4/74.6", "83.5", "86.3", "90.9", "66.7", "82.1"),
    "schubert-43m": ("86.7/79.0", "76.9/73.8", "83.4", "84.8", "90.9", "67.3", "81.7"),
}


def variant(preset: str) -> str:
    """schuBERT-all prunes h, f, a, k and v together; schuBERT-h the hidden size alone."""
    return "schuBERT-all" if preset in ("schubert-99m", "schubert-88m") else "schuBERT-h"
