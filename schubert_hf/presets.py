"""The shapes that the paper prints (Khetan & Karnin, ACL 2020, arXiv 2005.06628), by name, for `from_preset`.

The sizes in the names are the paper's nominal ones, embeddings included: "55m" has 55.48 million parameters. Their
pages are in `hub.presets`.
"""

from __future__ import annotations

from typing import Any

from .configuration_schubert import SchuBertConfig

# k and v stay at BERT's 64 while h shrinks ("expansive attention"). What is not given is BERT-base's.
_EXPANSIVE: dict[str, Any] = {"key_query_sizes": [64] * 12, "value_sizes": [64] * 12}
_HIDDEN_ALONE = {77: 544, 66: 466, 55: 390, 43: 304, 33: 234}
# fmt: off
PRESETS: dict[str, dict[str, Any]] = {
    "bert-base": _EXPANSIVE,
    "schubert-99m": {
        "filter_sizes": [2022, 2222, 2344, 2478, 2576, 2530, 2638, 2660, 2748, 2792, 2852, 2974],
        "head_counts": [12, 12, 12, 12, 11, 12, 12, 12, 12, 12, 12, 12],
        "key_query_sizes": [64] * 12,
        "value_sizes": [54, 54, 46, 58, 52, 60, 64, 64, 64, 64, 64, 62],
    },
    "schubert-88m": {
        "hidden_size": 756,
        "filter_sizes": [1382, 1550, 1672, 1956, 2052, 2030, 2210, 2314, 2474, 2556, 2668, 2938],
        "head_counts": [12, 12, 11, 12, 11, 12, 12, 12, 12, 12, 12, 12],
        "key_query_sizes": [64] * 12,
        "value_sizes": [46, 48, 42, 52, 46, 54, 64, 62, 64, 64, 64, 40],
    },
    **{f"schubert-{millions}m": {"hidden_size": h, **_EXPANSIVE} for millions, h in _HIDDEN_ALONE.items()},
}
# fmt: on


def register_presets() -> None:
    """Lets `SchuBertConfig.from_preset` find them."""
    SchuBertConfig.presets.update(PRESETS)
