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
            print(f"  {name:15} {widths}")


if __name__ == "__main__":
    main()
