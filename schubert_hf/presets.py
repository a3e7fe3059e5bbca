"""The architectures that the paper prints (arXiv 2005.06628), by name, with what they are.

The shapes themselves live in `configuration_schubert`, which is shipped with every checkpoint. The sizes in the names
are the paper's nominal ones, embeddings included: "55m" has 55.48 million parameters.
"""

from .configuration_schubert import PRESETS, SchuBertConfig

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


def preset_names() -> list[str]:
    """Names that `SchuBertConfig.from_preset` takes, the largest model first."""
    return list(PRESETS)


def describe(name: str) -> str:
    """One line on a preset, with its parameters (pooler included).

    Raises:
        SchuBertConfigError: for an unknown name.
    """
    millions = SchuBertConfig.from_preset(name).num_parameters() / 1e6
    return f"{name} ({millions:.2f}M): {DESCRIPTIONS[name]}"
