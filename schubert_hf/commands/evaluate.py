"""`schubert evaluate`: a pruned encoder or classifier beside its dense model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..cli import positional
from ..errors import EvaluationDataError
from ..training.loop_config import check_ranges, option


@dataclass
class Evaluate:
    """Compare a pruned model with the dense one, without labels and without a network.

        schubert evaluate small --dense sentence-transformers/all-MiniLM-L6-v2 --text other.txt --squad dev-v1.1.json

    A sentence encoder: cosine to the dense embeddings, rank correlation of all pairwise similarities and overlap of
    the ten nearest neighbours on --text; retrieval on --squad, also against the dense model's stored vectors;
    average precision on --mrpc. Any other model with a head: how often it agrees with the dense one on --text.
    """

    model: str = positional("Folder of a pruned model, or its name on the Hub.")
    dense: str | None = option(None, "The model that it was pruned from. Default: the one its record names.")
    text: str | None = option(None, "Held-out text: a file, a folder, or a dataset on the Hub.")
    squad: str | None = option(None, "A file in SQuAD's format: each question is searched for in all its paragraphs.")
    mrpc: str | None = option(None, "Folder with the official dev.tsv of MRPC.")
    tasks: str | None = option(None, 'MTEB tasks, such as "STSBenchmark,SciFact"; needs mteb and a network.')
    max_texts: int = option(1000, "At most this many sentences or examples of --text.", least=1)
    max_questions: int | None = option(None, "At most this many questions of --squad. Default: all.", least=1)
    json: bool = option(False, "Print JSON.")

    usage: ClassVar[str] = "schubert evaluate FOLDER [--dense MODEL] [--text FILE] [--squad FILE] [--mrpc FOLDER]"

    def run(self) -> None:
        figures = self.measure()
        if self.json:
            sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        else:
            from ..report import print_figures

            print_figures(self.model, figures)

    def measure(self) -> dict[str, Any]:
        """All figures that were asked for, by data set.

        Raises:
            SchuBertError: nothing was asked for, or models and data cannot be used.
        """
        from ..encoders.benchmark import evaluate_on_mteb
        from ..encoders.evaluating import evaluate_agreement, evaluate_encoder
        from ..encoders.kinds import is_sentence_encoder
        from ..encoders.sentence_encoder import SentenceEncoder
        from ..hub.record import dense_name

        if self.text is None and self.squad is None and self.mrpc is None and self.tasks is None:
            raise EvaluationDataError("There is nothing to evaluate on. Give `--text`, `--squad` or `--mrpc`.")
        check_ranges(self, EvaluationDataError)
        figures: dict[str, Any] = {}
        if is_sentence_encoder(self.model):
            if self.text is not None or self.squad is not None or self.mrpc is not None:
                figures = evaluate_encoder(
                    self.model,
                    self.dense or dense_name(Path(self.model)),
                    text=self.text,
                    squad=None if self.squad is None else Path(self.squad),
                    mrpc=None if self.mrpc is None else Path(self.mrpc),
                    questions=self.max_questions,
                    texts=self.max_texts,
                )
            if self.tasks is not None:
                names = [name.strip() for name in self.tasks.split(",") if name.strip()]
                figures["mteb"] = evaluate_on_mteb(SentenceEncoder.open(self.model).source, names)
            return figures
        if self.text is None or self.squad is not None or self.mrpc is not None or self.tasks is not None:
            raise EvaluationDataError(
                f"`{self.model}` is no sentence encoder; `--squad`, `--mrpc`, `--tasks` are for those. Give `--text`."
            )
        dense = self.dense or dense_name(Path(self.model))
        return evaluate_agreement(self.model, dense, self.text, texts=self.max_texts)
