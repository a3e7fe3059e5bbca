"""`schubert trim`: the same model with a smaller vocabulary."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

from ..cli import command_line, positional
from ..front.arguments import VOCABULARY, SettingError
from ..training.loop_config import option


@dataclass
class Trim:
    """Keep the words of a vocabulary that a text uses, without any training.

        schubert trim intfloat/multilingual-e5-base --vocabulary 99.9% --text english.txt --output-dir small

    Text of words that stay is tokenized and encoded exactly as before; other words fall back to smaller pieces.
    Special words and single characters always stay, so nothing becomes unknown that was not. `schubert prune
    --vocabulary` trims first and prunes then.
    """

    model: str | None = positional(
        "A BERT, a relative of it, or a SchuBERT, with any head or none: a folder or a name on the Hub.", default=None
    )
    vocabulary: str | None = option(None, VOCABULARY)
    text: str | None = option(
        None, "Text that words are counted in: a file or folder (documents separated by blank lines), or a dataset."
    )
    eval_text: str | None = option(
        None, "Held-out text to compare both vocabularies on. Default: every tenth document of --text."
    )
    output_dir: str = option("trimmed", "Folder for the result.")

    usage: ClassVar[str] = "schubert trim MODEL --vocabulary 99.9% --text TEXT [--output-dir FOLDER]"

    def run(self) -> None:
        from ..front.trim import trim
        from ..report import print_vocabulary

        missing = [name for name in ("model", "vocabulary") if getattr(self, name) is None]
        if self.model is None or self.vocabulary is None:
            raise SettingError(
                f"`{'` and `'.join(missing)}` {'is' if len(missing) == 1 else 'are'} missing. Give a model and how "
                "much of its vocabulary stays: `schubert trim google-bert/bert-base-uncased --vocabulary 99.9% "
                "--text corpus.txt`."
            )
        result = trim(
            self.model,
            self.vocabulary,
            text=self.text,
            eval_text=self.eval_text,
            output_dir=self.output_dir,
            command=command_line("schubert trim", self),
        )
        print_vocabulary(result.facts)
        sys.stdout.write(f"Saved in {result.output_dir}, with a page of its own (README.md).\n")
