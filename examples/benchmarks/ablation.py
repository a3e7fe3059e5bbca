"""What each idea of the default method is worth, right after the cut, with nothing trained.

    python examples/benchmarks/ablation.py

Cuts the small English BERT of this repository to 60 and 40 % of its parameters in every way below, and prints the
held-out masked-token and next-sentence loss as a table in Markdown. A few minutes on two cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from study.gradients import (
    activation_importance,
    fisher_importance,
    gate_gradients,
    mean_squares,
    taylor_importance,
)
from study.tables import markdown
from transformers import AutoTokenizer, PreTrainedModel

from schubert_hf.cli import parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.cost import ParameterCost, unit_cost
from schubert_hf.data.spans import pretraining_makers
from schubert_hf.data.stream import MaskingCollator, for_stream
from schubert_hf.data.text import load_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.pruning.basis import change_basis
from schubert_hf.pruning.criteria import (
    Scores,
    magnitude_importance,
    random_importance,
    ranks_within_groups,
)
from schubert_hf.pruning.curvature import curvature_importance
from schubert_hf.pruning.data import open_data
from schubert_hf.pruning.moments import measure_heads
from schubert_hf.pruning.restoration import PARTS, restore
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.surgery import compact
from schubert_hf.pruning.units import find_groups
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.shape import Shape
from schubert_hf.training.evaluate import evaluate
from schubert_hf.training.loop_config import option
from schubert_hf.training.objective import PretrainingObjective

DEFAULT = Path(__file__).resolve().parents[1] / "default"
Score = Callable[[PreTrainedModel], Scores]


@dataclass
class Arguments:
    """What to cut, and on which text."""

    model: str = option(str(DEFAULT / "model"), "A BERT: a folder or a name on the Hub.")
    text: str = option(str(DEFAULT / "text" / "train.txt"), "Text to look at: a file or folder.")
    eval_text: str = option(str(DEFAULT / "text" / "valid.txt"), "Held-out text.")
    max_length: int = option(128, "Word pieces per example.")
    calibration_examples: int = option(128, "Examples that are looked at; a quarter of them only to choose by.")
    eval_examples: int = option(256, "Held-out examples.")
    sizes: str = option("60,40", "Percent of the parameters.")
    seed: int = option(0, "Of the examples' order.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")


class Ablation:
    """Cuts one model in many ways, and measures each."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments, self.accelerator = arguments, make_accelerator()
        use_all_cores(self.accelerator, arguments.threads)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        self.model = load_for_pretraining(arguments.model, dtype=torch.float32).eval().to(self.accelerator.device)
        make, _ = pretraining_makers(self.model)
        train, held_out = (
            make(load_documents(text), tokenizer, max_length=arguments.max_length, seed=0)
            for text in (arguments.text, arguments.eval_text)
        )
        objective = PretrainingObjective(self.model)
        collator = MaskingCollator(tokenizer, seed=0)
        self.data = open_data(train, held_out, collator, tokenizer=tokenizer, objective=objective, seed=arguments.seed)
        set_seed(arguments.seed)
        numbers = range(arguments.calibration_examples)
        self.batches = [
            {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            for start in numbers[::32]
            for batch in [for_stream(collator)([self.data.stream[n] for n in numbers[start : start + 32]])]
        ]
        fold = max(1, len(self.batches) // 4)
        self.batches, self.fold = self.batches[:-fold], self.batches[-fold:]
        self.cost = ParameterCost(self.model)
        self.groups = find_groups(self.model.config, "hfakv")
        moments = measure_heads(self.model, self.batches)
        self.models = {
            "as trained": self.model,
            "sorted": change_basis(self.model),
            "sorted by real moments": change_basis(self.model, moments),
        }

    def criteria(self) -> Mapping[str, Score]:
        """Scores by cost where a criterion is a change of the loss, as they are elsewhere."""
        shape = Shape.of(self.model.config)
        prices = {group: unit_cost(self.cost, shape, *group) for group in self.groups}

        def by_cost(scores: Scores) -> Scores:
            return {group: score / prices[group] for group, score in scores.items()}

        def gradients(model: PreTrainedModel) -> Any:
            small = [
                {name: t[i : i + 4] for name, t in batch.items()} for batch in self.batches for i in range(0, 32, 4)
            ]
            return gate_gradients(PretrainingObjective(model), self.groups, small)

        return {
            "curvature": lambda model: curvature_importance(
                PretrainingObjective(model), self.groups, self.cost, self.batches
            ),
            "Fisher": lambda model: by_cost(fisher_importance(gradients(model))),
            "Taylor": lambda model: by_cost(taylor_importance(gradients(model))),
            "activation norm": lambda model: activation_importance(mean_squares(model, self.groups, self.batches)),
            "magnitude": lambda model: magnitude_importance(self.groups, model.named_parameters()),
            "uniform": lambda model: ranks_within_groups(magnitude_importance(self.groups, model.named_parameters())),
            "random": lambda model: random_importance(self.groups, self.arguments.seed),
        }

    def measure(
        self,
        basis: str,
        scores: Scores,
        size: int,
        parts: tuple[str, ...],
        dimensions: str = "hfakv",
        ridge: float | None = None,
    ) -> tuple[float, float, float]:
        """Masked-token loss, next-sentence loss, and the seconds that cut and restoration took.

        Args:
            ridge: of all that is refit; None: chosen on the fold.
        """
        model = self.models[basis]
        began = time.monotonic()
        limit = self.cost(Shape.of(model.config)) * size / 100
        chosen = {group: score for group, score in scores.items() if group.dimension in dimensions}
        plan = select(chosen, model.config, self.cost, limit, multiple_of={"h": 8, "f": 8})
        smaller = compact(model, plan)
        if parts:
            smaller = restore(smaller, model, plan, self.batches, fold=self.fold, ridge=ridge, parts=parts)
        seconds = time.monotonic() - began
        losses = evaluate(
            self.accelerator,
            PretrainingObjective(smaller),
            self.data.eval_stream,
            self.data.eval_collator,
            batch_size=32,
            examples=self.arguments.eval_examples,
        )
        return losses["mlm"], losses.get("nsp", float("nan")), seconds


def all_but(part: str) -> tuple[str, ...]:
    return tuple(other for other in PARTS if other != part)


def main() -> None:
    (arguments,) = parse("What each idea is worth.", Arguments)
    with one_line_errors():
        ablation = Ablation(arguments)
        sizes = [int(size) for size in arguments.sizes.split(",")]
    criteria = ablation.criteria()
    best = "sorted by real moments"
    variants: list[tuple[Any, ...]] = [  # title, basis, criterion, parts, dimensions, ridge
        ("all kinds in one order", best, "curvature", PARTS),
        *((f"basis: {basis}, not restored", basis, "curvature", ()) for basis in ablation.models),
        *((f"basis: {basis}", basis, "curvature", PARTS) for basis in ablation.models if basis != best),
        *((f"without restoring {part}", best, "curvature", all_but(part)) for part in PARTS),
        *((f"criterion: {name}", best, name, PARTS) for name in criteria if name != "curvature"),
        ("without hidden channels", best, "curvature", PARTS, "fakv"),
        ("without heads", best, "curvature", PARTS, "hfkv"),
        ("filters, keys, queries and values alone", best, "curvature", PARTS, "fkv"),
        *((f"ridge {ridge}", best, "curvature", PARTS, "hfakv", ridge) for ridge in (0.01, 0.03, 0.1, 0.3)),
    ]
    heads = [f"{size} %: {what}" for size in sizes for what in ("masked-token loss", "NSP loss", "seconds")]
    rows = [["variant", *heads], [":---", *["---:"] * len(heads)]]
    known: dict[tuple[str, str], Scores] = {}
    for title, basis, criterion, *how in variants:
        if (basis, criterion) not in known:
            known[basis, criterion] = criteria[criterion](ablation.models[basis])
        cells = []
        for size in sizes:
            mlm, nsp, seconds = ablation.measure(basis, known[basis, criterion], size, *how)
            cells += [f"{mlm:.3f}", f"{nsp:.3f}", f"{seconds:.1f}"]
        rows.append([title, *cells])
        print(f"{title}: {', '.join(cells)}", file=sys.stderr, flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
