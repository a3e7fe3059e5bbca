"""Models that are cut by several methods without any training, to the same cost and on the same examples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.cost import BudgetError, Cost, FlopCost, ParameterCost
from schubert_hf.data.spans import pretraining_makers
from schubert_hf.data.stream import Collator, MaskingCollator
from schubert_hf.data.text import load_documents
from schubert_hf.evaluation.loading import load_tokenizer
from schubert_hf.evaluation.open_task import open_task
from schubert_hf.evaluation.task_examples import TaskExamples
from schubert_hf.pruning.data import open_data
from schubert_hf.run.progress import quiet
from schubert_hf.shape import Shape
from schubert_hf.training.evaluate import evaluate
from schubert_hf.training.objective import Objective, PretrainingObjective

from .k_prune import prune_with_k_prune
from .kwon import prune_with_kwon

PEERS = {"kwon": prune_with_kwon, "k-prune": prune_with_k_prune}
METHODS = {
    "auto": "this library's default",
    "kwon": "Kwon et al. 2022 (arXiv 2204.09656)",
    "k-prune": "Park et al. 2024 (arXiv 2308.03449)",
}
# The default, of which only these kinds of units may be cut.
METHODS |= {f"auto-{kinds}": f"the same, {kinds} alone" for kinds in ("fkv", "hfkv", "fakv", "f", "h", "a")}
UNITS = {"flops": "FLOPs", "parameters": ""}


@dataclass(frozen=True)
class Subject:
    """A dense model with its examples.

    Attributes:
        model: as it was loaded; methods copy it.
        objective: makes the loss that methods measure.
        collator: makes batches.
        task: the task of a fine-tuned model; None for masked-language modelling.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Any
    held_out: Any
    objective: Callable[[PreTrainedModel], Objective]
    collator: Collator
    task: TaskExamples | None = None


def open_text(model: str, text: str, eval_text: str, *, max_length: int) -> Subject:
    """A BERT with its pretraining heads, on text."""
    with quiet():
        loaded = load_for_pretraining(model, dtype=torch.float32)
    tokenizer = load_tokenizer(model)
    make, _ = pretraining_makers(loaded)
    train, held_out = (
        make(load_documents(name), tokenizer, max_length=max_length, seed=0) for name in (text, eval_text)
    )
    return Subject(loaded, tokenizer, train, held_out, PretrainingObjective, MaskingCollator(tokenizer, seed=0))


def open_fine_tuned(model: str, task: str, data: Path | None, *, max_length: int) -> Subject:
    """A fine-tuned model, on its task."""
    loaded, tokenizer, examples = open_task(task, model, data=data, max_length=max_length)
    return Subject(
        loaded, tokenizer, examples.train, examples.held_out, examples.objective, examples.collator, examples
    )


@dataclass(frozen=True)
class Conditions:
    """What all methods share.

    Attributes:
        examples: that a method may look at, all from the training set and the same for all.
        batch_size: of them, and of the evaluation.
        eval_examples: held-out examples of the masked-LM loss; tasks are evaluated on their whole development set.
        max_length: tokens per sequence, which the FLOPs are counted at, too.
        seed: of the order of the training examples, and their masks.
        cost: what is to be the same: flops, or parameters.
    """

    examples: int
    batch_size: int
    eval_examples: int
    max_length: int
    seed: int
    cost: str = "flops"


class Trials:
    """Cuts a subject, and measures what is left."""

    def __init__(self, subject: Subject, conditions: Conditions, accelerator: Accelerator) -> None:
        self.subject, self.conditions, self.accelerator = subject, conditions, accelerator
        self.dense = subject.model.to(accelerator.device).eval()
        self.flops = FlopCost(self.dense.config, seq_len=conditions.max_length)
        self.cost: Cost = self.flops if conditions.cost == "flops" else ParameterCost(self.dense)
        self.size = self.cost(Shape.of(self.dense.config))

    def run(self, method: str, percent: int) -> dict[str, Any]:
        """Cuts by a method to so many percent of the cost.

        Returns:
            JSON: `flops`, `parameters`, `shape`, `scores` and `seconds` of the cut; or `unreachable`, the reason.
        """
        budget, began = self.size * percent / 100, time.monotonic()
        try:
            model = self._prune(method, budget)
        except BudgetError as error:
            return {"budget": budget, "unreachable": str(error)}
        seconds = time.monotonic() - began
        return {"budget": budget, "seconds": round(seconds, 1), **self.measure(model)}

    def measure(self, model: PreTrainedModel) -> dict[str, Any]:
        """Size and scores of a model."""
        shape = Shape.of(model.config)
        size = {"flops": self.flops(shape), "parameters": model.num_parameters(), "shape": asdict(shape)}
        return {**size, "scores": self._scores(model)}

    def _prune(self, method: str, budget: float) -> PreTrainedModel:
        subject, config = self.subject, self._config(budget)
        name, _, kinds = method.partition("-")
        if name == "auto":
            config = replace(config, dimensions=kinds or config.dimensions)
            pruner = SchuBertPruner(
                self.dense,
                config,
                train_dataset=subject.train,
                eval_dataset=subject.held_out,
                data_collator=subject.collator,
                tokenizer=subject.tokenizer,
                accelerator=self.accelerator,
                objective=subject.objective,
            )
            return pruner.prune().model
        objective = subject.objective(self.dense)
        data = open_data(
            subject.train,
            subject.held_out,
            subject.collator,
            tokenizer=subject.tokenizer,
            objective=objective,
            seed=config.seed,
        )
        measured, fold = data.calibration(self.accelerator, 0, config)  # only `auto` keeps some apart to choose by
        return PEERS[method](objective, self.cost, budget, [*measured, *fold])

    def _config(self, budget: float) -> PruningConfig:
        shared = self.conditions
        return PruningConfig(
            target=f"{int(budget)}{UNITS[shared.cost]}",
            cost=shared.cost,
            cost_seq_len=shared.max_length,
            recovery_steps=0,
            calibration_examples=shared.examples,
            batch_size=shared.batch_size,
            eval_examples=shared.batch_size,  # the pruner's own evaluations are not used
            seed=shared.seed,
        )

    def _scores(self, model: PreTrainedModel) -> dict[str, float]:
        subject, shared = self.subject, self.conditions
        objective = subject.objective(model)
        if subject.task is not None:
            found = subject.task.evaluate(self.accelerator, objective, shared.batch_size)
            return dict(found[subject.task.splits[0]])
        data = open_data(
            subject.train,
            subject.held_out,
            subject.collator,
            tokenizer=subject.tokenizer,
            objective=objective,
            seed=shared.seed,
        )
        sums = evaluate(
            self.accelerator,
            objective,
            data.eval_stream,
            data.eval_collator,
            batch_size=shared.batch_size,
            examples=shared.eval_examples,
        )
        return {name: value for name, value in sums.items() if name != "loss"}
