"""Writes BERT-base's shape with random weights, dense and with half of its FLOPs, to export and time them.

    python examples/benchmarks/base_shape.py --tokenizer sentence-transformers/all-MiniLM-L6-v2
    schubert export base-shape/half --format openvino --int8 --text corpus.txt
    schubert bench base-shape/dense base-shape/half --batch-size 1 8 --threads 1

Half has 1536 filters in each layer, and keys, queries and values of 32. A search would give every layer widths of its
own; the time is that of this many FLOPs either way. What random weights compute says nothing of quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from schubert_hf import SchuBertConfig, SchuBertModel
from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.training.loop_config import option

LAYERS = 12
HALF = {"filter_sizes": [1536] * LAYERS, "key_query_sizes": [32] * LAYERS, "value_sizes": [32] * LAYERS}


@dataclass
class Arguments:
    """What is written, and where to."""

    tokenizer: str = option("google-bert/bert-base-uncased", "A tokenizer of BERT's 30,522 words: folder or name.")
    output_dir: str = option("base-shape", "Folder for both models.")


def main() -> None:
    (arguments,) = parse(str(__doc__), Arguments)
    with one_line_errors():
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        for name, widths in {"dense": {}, "half": HALF}.items():
            torch.manual_seed(0)
            model = SchuBertModel(SchuBertConfig(**widths)).eval()
            folder = Path(arguments.output_dir, name)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            size = (
                f"{model.num_parameters() / 1e6:.1f}M parameters, {model.config.flops(seq_len=128) / 1e9:.2f} GFLOPs"
            )
            print(f"{folder}: {size} for 128 tokens")


if __name__ == "__main__":
    main()
