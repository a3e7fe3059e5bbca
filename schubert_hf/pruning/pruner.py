"""SchuBertPruner: Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628) on Accelerate.

Each of T rounds: alphas to 1; train them alone, under an L1 penalty; zero the smallest, as many as bring the size down by a T-th
of the way; fold the others into the weights; build the smaller model; train it. The plan is decided by the main process and
sent to the others, and after every cut all processes must hold the same weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..auto import MODELS
from ..conversion import convert_bert
from ..cost import ParameterCost, Shape, parse_target, penalty_weights
from ..training.checkpoint import (
    MODEL,
    CheckpointError,
    load_state,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from ..training.loop import TrainingLoop, evaluate
from ..training.objective import Batch, Objective, PretrainingObjective
from ..training.output import check_output_folder, result_files
from ..training.stream import Collator, ExampleStream, MaskingCollator
from .config import PruningConfig
from .gates import Gates, fold_tensors
from .importance import alpha_importance
from .plan import PruningPlan
from .result import PruningResult, RoundRecord
from .selection import check_reachable, select
from .surgery import compact
from .units import find_groups

RECORD = "pruning.json"


class GatedObjective(Objective):
    """An objective whose model computes with gates; as one module, so that data-parallel training sees the alphas."""

    def __init__(self, objective: Objective, gates: Gates):
        super().__init__(objective.model)
        self.terms = objective.terms
        self.inner = objective
        self.gates = gates

    def count(self, batch: Batch) -> dict[str, int]:
        return self.inner.count(batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.gates.attached(self.model):
            result: dict[str, Tensor] = self.inner(batch)
            return result


class SchuBertPruner:
    """Prunes a BERT to a budget.

    Args:
        model: a SchuBERT, or a BERT of transformers (converted, not touched), with a masked-LM head.
        config: see `PruningConfig`.
        train_dataset: examples with `input_ids`, `token_type_ids` and, for models with a NSP head, `next_sentence_label`;
            see `training.pairs.make_pairs`.
        eval_dataset: held-out examples of the same kind.
        data_collator: from examples to a masked batch; by default dynamic masking with `tokenizer`.
        tokenizer: saved with the result.
        output_dir: where checkpoints and result are written; None writes nothing.
        accelerator: by default one is made, as `accelerate launch` configured it.
        objective: makes what is minimised from a model; by default MLM + NSP.

    Raises:
        BudgetError: the target cannot be met. Like all errors of bad input it is raised here, before any work.
        OutputFolderError: `output_dir` already holds a model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: PruningConfig | None = None,
        *,
        train_dataset: Any,
        eval_dataset: Any,
        data_collator: Collator | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        output_dir: str | Path | None = None,
        accelerator: Accelerator | None = None,
        objective: Callable[[PreTrainedModel], Objective] = PretrainingObjective,
    ):
        self.config = config or PruningConfig()
        self.accelerator = accelerator or Accelerator()
        self.model: PreTrainedModel = convert_bert(model) if model.config.model_type == "bert" else model
        self.make_objective = objective
        self.objective = objective(self.model)
        self.cost = ParameterCost(self.model.config, _architecture(self.model))
        self.source = Shape.of(self.model.config)
        self.source_size = self.cost(self.source)
        self.budget = parse_target(self.config.target, self.source_size)
        self._check_reachable()
        if data_collator is None:
            if tokenizer is None:
                raise ValueError("Give `data_collator`, or `tokenizer` for dynamic masking with it.")
            data_collator = MaskingCollator(tokenizer, seed=self.config.seed)
        self.collator = data_collator
        self.eval_collator = data_collator
        if isinstance(data_collator, MaskingCollator):
            # The same examples must not have the same masks in training and evaluation, should somebody pass the same set.
            self.eval_collator = MaskingCollator(data_collator.tokenizer, seed=self.config.seed + 1)
        self.stream = ExampleStream(train_dataset, seed=self.config.seed)
        self.eval_stream = ExampleStream(eval_dataset, shuffle=False)
        self.tokenizer = tokenizer
        self.output_dir = Path(output_dir) if output_dir is not None else None
        if self.output_dir is not None:
            check_output_folder(self.output_dir)
        self.records: list[RoundRecord] = []
        self.plans: list[PruningPlan] = []
        self._position = 0

    def prune(self, *, resume: bool = False) -> PruningResult:
        """Runs all rounds, writes the result to `output_dir`, and returns it.

        Args:
            resume: go on after the last round whose checkpoint is whole.

        Raises:
            CheckpointError: checkpoints lie in `output_dir` and `resume` is off, or they belong to a run with other settings.
            NonFiniteLossError: training diverged; the checkpoints of finished rounds stay.
        """
        if self.output_dir is not None:
            self._open_checkpoint(self.output_dir / "checkpoints", resume)
        self.model.to(self.accelerator.device)
        while len(self.records) < self.config.rounds:
            self._run_round(len(self.records) + 1)
            self._save_checkpoint()
        result = PruningResult(
            model=self.model.eval(),
            source=self.source,
            rounds=tuple(self.records),
            plans=tuple(self.plans),
            unit=self.cost.unit,
            output_dir=self.output_dir,
        )
        if self.output_dir is not None and self.accelerator.is_main_process:
            self._save_result(result, self.output_dir)
        self.accelerator.wait_for_everyone()
        return result

    def _run_round(self, number: int) -> None:
        clock = _Clock()
        name = f"round {number}/{self.config.rounds}"
        size_before = self.cost(Shape.of(self.model.config))
        before = self.records[-1].after_recovery if self.records else self._evaluate(f"{name} before")
        clock.lap("evaluation")
        gates = self._train_alphas(f"{name} alphas")
        clock.lap("alphas")
        # The way from the source to the target in T equal steps: after round t a share t/T of it is done.
        budget = self.source_size - (self.source_size - self.budget) * number / self.config.rounds
        plan = self._decide(gates, budget)
        self._replace_model(compact(self.model, plan, tensors=fold_tensors(self.model, gates)))
        clock.lap("cut")
        after_cut = self._evaluate(f"{name} after the cut")
        clock.lap("evaluation")
        self._recover(f"{name} recovery")
        clock.lap("recovery")
        after_recovery = self._evaluate(f"{name} after recovery") if self.config.recovery_steps else after_cut
        clock.lap("evaluation")
        self.plans.append(plan)
        self.records.append(
            RoundRecord(
                number=number,
                budget=budget,
                size_before=size_before,
                size=self.cost(plan.shape),
                before=before,
                after_cut=after_cut,
                after_recovery=after_recovery,
                shape=plan.shape,
                alphas={
                    str(group): [round(float(value), 4) for value in (alpha.min(), alpha.mean(), alpha.max())]
                    for group, alpha in gates.values().items()
                },
                seconds=clock.seconds,
            )
        )

    def _train_alphas(self, description: str) -> Gates:
        """Step 3 of Algorithm 1: min over alpha of L + gamma * penalty, every weight frozen."""
        gates = Gates(self.model.config, self.config.dimensions).to(self.accelerator.device)
        weights = penalty_weights(self.cost, Shape.of(self.model.config), gates.groups)
        beta = {group: weights[group] for group in gates.groups}
        self.model.requires_grad_(False)
        loop = TrainingLoop(
            self.accelerator,
            GatedObjective(self.objective, gates),
            gates.named_parameters(),
            self.config.alpha_loop(),
            penalty=lambda: self.config.gamma * gates.penalty(beta),
        )
        self._run_loop(loop, description)
        self.model.requires_grad_(True)
        return gates

    def _recover(self, description: str) -> None:
        """Step 7: every weight of the smaller model is trained on the loss alone."""
        if self.config.recovery_steps:
            loop = TrainingLoop(
                self.accelerator, self.objective, self.model.named_parameters(), self.config.recovery_loop()
            )
            self._run_loop(loop, description)

    def _run_loop(self, loop: TrainingLoop, description: str) -> None:
        loop.run(self.stream, self.collator, offset=self._position, description=description)
        self._position += loop.config.steps * loop.config.batch_size
        self.accelerator.free_memory()

    def _decide(self, gates: Gates, budget: float) -> PruningPlan:
        """Steps 4 and 5: one process decides, all others get its plan."""
        scores = alpha_importance({group: alpha.cpu() for group, alpha in gates.values().items()})
        plan = select(scores, self.model.config, self.cost, budget, multiple_of=self.config.multiples)
        shared = [plan.to_json()]
        broadcast_object_list(shared)
        return PruningPlan.from_json(shared[0])

    def _replace_model(self, model: PreTrainedModel) -> None:
        self.model = model
        self.objective = self.make_objective(model)
        self.accelerator.free_memory()
        own = torch.stack([parameter.detach().double().sum() for parameter in model.parameters()]).sum()[None]
        sums = self.accelerator.gather(own)
        if not bool((sums == sums[0]).all()):
            raise RuntimeError(
                f"The processes hold different weights after a cut: {sums.tolist()}. This is a bug; report it."
            )

    def _evaluate(self, description: str) -> dict[str, float]:
        return evaluate(
            self.accelerator,
            self.objective,
            self.eval_stream,
            self.eval_collator,
            batch_size=self.config.micro_batch_size or self.config.batch_size,
            examples=self.config.eval_examples,
            description=description,
        )

    def _check_reachable(self) -> None:
        """Fails now rather than after an hour of training: the smallest shape must meet the budget."""
        groups = find_groups(self.model.config, self.config.dimensions)
        check_reachable(groups, self.model.config, self.cost, self.budget, multiple_of=self.config.multiples)

    def _settings(self) -> dict[str, Any]:
        return {"config": asdict(self.config), "source": asdict(self.source), "examples": len(self.stream.examples)}

    def _save_checkpoint(self) -> None:
        if self.output_dir is not None and self.accelerator.is_main_process:
            state = {
                "settings": self._settings(),
                "position": self._position,
                "rounds": [record.to_json() for record in self.records],
                "plans": [plan.to_json() for plan in self.plans],
            }
            save_checkpoint(
                self.output_dir / "checkpoints" / f"round-{len(self.records):03d}", self.model, state=state
            )
        self.accelerator.wait_for_everyone()

    def _open_checkpoint(self, folder: Path, resume: bool) -> None:
        checkpoint = newest_checkpoint(folder)
        if checkpoint is None:
            return
        if not resume:
            raise CheckpointError(
                f"`{folder}` holds the checkpoints of an earlier run. Go on with it by resuming (`--resume`), or give another "
                "output folder."
            )
        state = load_state(checkpoint)
        own = json.loads(json.dumps(self._settings()))
        for section, settings in own.items():
            if state["settings"][section] != settings:
                raise CheckpointError(
                    f"`{checkpoint}` belongs to a run with another {section}: {state['settings'][section]}, now {settings}. "
                    "Give the same settings, or another output folder."
                )
        self._position = state["position"]
        self.records = [RoundRecord.from_json(record) for record in state["rounds"]]
        self.plans = [PruningPlan.from_json(plan) for plan in state["plans"]]
        self.model = type(self.model).from_pretrained(checkpoint / MODEL, dtype=self.model.dtype)
        self.objective = self.make_objective(self.model)

    def _save_result(self, result: PruningResult, output: Path) -> None:
        with result_files(output) as folder:
            result.model.save_pretrained(folder)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(folder)
            write_json(folder / RECORD, {"config": asdict(self.config), **result.to_json()})


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now


def _architecture(model: PreTrainedModel) -> str:
    name = type(model).__name__
    if name not in {known.__name__ for known in MODELS.values()}:
        raise ValueError(
            f"`{name}` is no SchuBERT class. Convert a BERT with `schubert_hf.convert_bert(model)` first."
        )
    return name
