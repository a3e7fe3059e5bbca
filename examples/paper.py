"""Shows the paper's shapes, and runs its Algorithm 1 (Khetan & Karnin, ACL 2020, arXiv 2005.06628).

    python examples/paper.py

Without arguments Algorithm 1 takes the included English BERT down to 80, then 60 % of its parameters, for far fewer
steps than the paper. model_cards/ has, for each of the shapes, the command that prunes BERT-base to it in the paper's
number of steps. The output is at the end of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import schubert_hf
from schubert_hf import SchuBertConfig
from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.presets import PRESETS
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).parent / "default"


@dataclass
class Arguments:
    """What Algorithm 1 prunes, and for how long."""

    model: str = option(str(DEFAULT / "model"), "A BERT with a masked-LM head: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text to train on: a file, a folder or a dataset.")
    target: str = option("80%,60%", "The sizes, one after another.")
    rounds: int = option(1, "Rounds of Algorithm 1 for each size.")
    alpha_steps: int = option(15, "Steps per round that train the alphas.")
    recovery_steps: int = option(20, "Steps per round that train the smaller model.")
    output_dir: str = option("pruned-paper", "Folder for the smaller models.")


def main() -> None:
    (arguments,) = parse(str(__doc__), Arguments)
    for name in PRESETS:
        config = SchuBertConfig.from_preset(name)
        size, flops = config.num_parameters(), config.flops(seq_len=128)
        print(f"{name:13} {size / 1e6:6.1f}M parameters {flops / 1e9:5.1f} GFLOPs for 128 tokens")
    with one_line_errors():
        result = schubert_hf.prune(
            arguments.model,
            arguments.target,
            method="schubert",
            text=arguments.text,
            rounds=arguments.rounds,
            alpha_steps=arguments.alpha_steps,
            recovery_steps=arguments.recovery_steps,
            output_dir=arguments.output_dir,
        )
    for record in result.rounds:
        print(f"\n{record.size:,.0f} parameters, held-out loss {record.after_recovery['loss']:.3f}")
        for name, widths in vars(record.shape).items():
            if widths is not None:
                print(f"  {name:15} {' '.join(map(str, widths))}")


if __name__ == "__main__":
    main()

# bert-base      109.5M parameters  22.3 GFLOPs for 128 tokens
# schubert-99m    98.9M parameters  19.6 GFLOPs for 128 tokens
# schubert-88m    88.5M parameters  17.0 GFLOPs for 128 tokens
# schubert-77m    77.4M parameters  16.0 GFLOPs for 128 tokens
# schubert-66m    66.3M parameters  13.8 GFLOPs for 128 tokens
# schubert-55m    55.5M parameters  11.6 GFLOPs for 128 tokens
# schubert-43m    43.2M parameters   9.2 GFLOPs for 128 tokens
# schubert-33m    33.3M parameters   7.2 GFLOPs for 128 tokens
#
# 4,189,626 parameters, held-out loss 4.550
#   hidden_sizes    192 192 192 192 192 192 192 192
#   filter_sizes    760 752 208 752 304 232 272 760
#   head_counts     6 6 6 4 3 5 4 6
#   key_query_sizes 32 32 32 32 32 32 24 32
#   value_sizes     32 32 24 32 32 32 24 32
#
# 3,141,706 parameters, held-out loss 4.863
#   hidden_sizes    168 168 168 168 168 168 168 168
#   filter_sizes    696 688 144 680 168 144 160 696
#   head_counts     6 6 5 2 3 1 2 5
#   key_query_sizes 32 32 16 16 16 16 8 32
#   value_sizes     32 32 24 24 24 24 16 32
