"""Trims the vocabulary of a model to the words that a text uses, then prunes the rest of it.

    python examples/multilingual.py

Most of a multilingual encoder is its vocabulary, so for one language this is where the parameters are. Without
arguments it is shown on the included English BERT, offline. The real thing:

    python examples/multilingual.py --model intfloat/multilingual-e5-small --text english.txt --target 25%

The target refers to the model before trimming. The output is at the end of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import schubert_hf
from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).parent / "default"


@dataclass
class Arguments:
    """What is trimmed and pruned, on which text."""

    model: str = option(str(DEFAULT / "model"), "A BERT or a relative, or a sentence encoder: a folder or a name.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text in the languages that stay.")
    vocabulary: str = option("99%", "How many words stay, or how much of the text's tokens they cover.")
    target: str = option("60%", "What must remain of the parameters, those of the vocabulary included.")
    recovery_steps: int = option(20, "Training steps after the cut.")
    output_dir: str = option("pruned-multilingual", "Folder for the smaller model.")


def main() -> None:
    (arguments,) = parse(str(__doc__), Arguments)
    with one_line_errors():
        result = schubert_hf.prune(
            arguments.model,
            arguments.target,
            vocabulary=arguments.vocabulary,
            text=arguments.text,
            recovery_steps=arguments.recovery_steps,
            output_dir=arguments.output_dir,
        )
    facts, last = result.provenance["vocabulary"], result.rounds[-1]
    (words, left), (dense, trimmed), (before, after) = facts["words"], facts["parameters"], facts["held_out"]["tokens"]
    print(f"vocabulary: {words:,} -> {left:,} words; held-out text takes {after / before - 1:+.1%} tokens")
    print(f"parameters: {dense:,} -> {trimmed:,} trimmed -> {result.size:,.0f} pruned ({result.kept:.1%} kept)")
    print(f"held-out loss: {last.before['loss']:.3f} trimmed -> {last.after_recovery['loss']:.3f} pruned")


if __name__ == "__main__":
    main()

# vocabulary: 8,192 -> 4,806 words; held-out text takes +1.2% tokens
# parameters: 5,240,194 -> 4,586,696 trimmed -> 3,141,408 pruned (59.9% kept)
# held-out loss: 4.608 trimmed -> 4.585 pruned
