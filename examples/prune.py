"""Prunes a BERT to a budget, after schuBERT (Khetan & Karnin, ACL 2020): `--method schubert` is their Algorithm 1.

    accelerate launch examples/prune.py

Without arguments it takes the small English BERT that is included beside it to 60 % of its parameters, offline, in a
few minutes on two cores. The same for any BERT, from the Hub or from disk:

    accelerate launch examples/prune.py --model google-bert/bert-base-uncased --dataset wikitext --target 66M

`--recovery-steps 0` trains nothing at all. Several sizes in one run, each with its model and its page:

    accelerate launch examples/prune.py --target 80%,60%,40%

A model that was fine-tuned by run_glue.py or run_squad.py is pruned on its task, with the loss of its head:

    accelerate launch examples/prune.py --task sst2 --model tuned/sst2/seed-0

A run can be stopped at any moment; `--resume` continues it. The installed command `schubert prune` does the same
without this file, and `schubert_hf.prune` does it from Python.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from schubert_hf import PruningConfig
from schubert_hf.cli import command_line, parse
from schubert_hf.commands.prune import run
from schubert_hf.front.arguments import GROUPS, PruneArguments
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).parent / "default"
USAGE = "accelerate launch examples/prune.py [--model MODEL] [--text TEXT] [--target SIZE] [more settings]"


@dataclass
class Arguments(PruneArguments):
    """Those of the package, with the embedded model by default."""

    model: str = option(str(DEFAULT / "model"), "A BERT or SchuBERT: a folder or a name on the Hub.")


def main() -> None:
    arguments, config = parse(str(__doc__), Arguments, PruningConfig, groups=GROUPS, usage=USAGE)
    command = command_line("accelerate launch examples/prune.py", arguments, config)
    run(with_default_text(arguments), config, command, root=DEFAULT.parent.parent)


def with_default_text(arguments: Arguments) -> Arguments:
    """The same, with the embedded novels where no text is named."""
    if arguments.text is not None or arguments.dataset is not None or arguments.task is not None:
        return arguments
    text = DEFAULT / "text"
    return replace(arguments, text=str(text / "train.txt"), eval_text=arguments.eval_text or str(text / "valid.txt"))


if __name__ == "__main__":
    main()
