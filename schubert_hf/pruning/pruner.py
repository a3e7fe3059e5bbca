"""SchuBertPruner: Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628) on Accelerate.

Each of T rounds: alphas to 1; train them alone, under an L1 penalty; zero the smallest, as many as bring the size down
by a T-th of the way; fold the others into the weights; build the smaller model; train it. The plan is that of the main
process, which sends it to the others, and after every cut all processes must hold the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..auto import MODELS
from ..conversion import ConversionError, convert_bert
from ..cost import ParameterCost, Shape, parse_target, penalty_weights
from ..provenance import machine, versions
from ..training.checkpoint import write_json
from ..training.environment import make_accelerator
from ..training.loop import TrainingLoop, evaluate
from ..training.objective import Objective, PretrainingObjective
from ..training.output import check_output_folder, result_files
from ..training.progress import quiet
from ..training.stream import Collator
from .checkpoint import Progress, check_not_begun, load_round, save_round
from .config import PruningConfig, PruningConfigError
from .data import open_data
from .gated_objective import GatedObjective
from .gates import Gates, fold_tensors
from .importance import alpha_importance
from .plan import PruningPlan
from .result import PruningResult, RoundRecord
from .selection import check_reachable, select
from .surgery import compact
from .units import check_tensors, find_groups
from .weights import check_same_weights, fingerprint

RECORD = "pruning.json"
CHECKPOINTS = "checkpoints"


class SchuBertPruner:
    """Prunes a BERT to a budget.

    Args:
        model: a SchuBERT, or a BERT of transformers, with a masked-LM head. It is copied, not touched; half precision
            is trained, and given back, in float32.
        config: see `PruningConfig`.
        train_dataset: examples with `input_ids`, `token_type_ids` and, for models with a NSP head,
            `next_sentence_label`; see `training.pairs.make_pairs`.
        eval_dataset: held-out examples of the same kind.
        data_collator: from examples to a masked batch; by default dynamic masking with `tokenizer`.
        tokenizer: saved with the result.
        output_dir: where checkpoints and result are written; None writes nothing.
        accelerator: by default one is made, as `accelerate launch` configured it.
        objective: makes what is minimised from a model; by default MLM + NSP.
        provenance: what the model's page should say of base model and text, as JSON; recorded beside versions and
            machine.

    Raises:
        BudgetError: the target cannot be met. Like all errors of bad input it is raised here, before any work.
        ConversionError, ObjectiveError, UnknownTensorError: the model is none that can be pruned.
        PruningDataError: the data does not fit the model.
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
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config or PruningConfig()
        self.accelerator = accelerator or make_accelerator()
        if self.config.batch_size % self.accelerator.num_processes:
            raise PruningConfigError(
                f"`batch_size` is {self.config.batch_size} examples per step over {self.accelerator.num_processes} "
                "processes; give a multiple of the number of processes."
            )
        self.model = _own_copy(model)
        self.fingerprint = fingerprint(self.model)
        self.make_objective = objective
        self.objective = objective(self.model)
        self.cost = ParameterCost(self.model.config, type(self.model).__name__)
        self.source = Shape.of(self.model.config)
        self.source_size = self.cost(self.source)
        self.budget = parse_target(self.config.target, self.source_size)
        groups = find_groups(self.model.config, self.config.dimensions)
        check_reachable(groups, self.model.config, self.cost, self.budget, multiple_of=self.config.multiples)
        self.tokenizer = tokenizer
        self.data = open_data(
            train_dataset,
            eval_dataset,
            data_collator,
            tokenizer=tokenizer,
            objective=self.objective,
            seed=self.config.seed,
        )
        self.output_dir = Path(output_dir) if output_dir is not None else None
        if self.output_dir is not None:
            check_output_folder(self.output_dir)
        self.provenance = {
            "examples": len(self.data.stream.examples),
            "mlm_probability": getattr(self.data.collator, "mlm_probability", None),
            **(provenance or {}),
            "processes": self.accelerator.num_processes,
            "precision": self.accelerator.mixed_precision,
            "versions": versions(),
            "machine": machine(),
        }
        self.progress = Progress()

    def prune(self, *, resume: bool = False) -> PruningResult:
        """Runs all rounds, writes the result to `output_dir`, and returns it.

        Args:
            resume: go on after the last round whose checkpoint is whole, or begin where there is none.

        Raises:
            CheckpointError: checkpoints lie in `output_dir` and `resume` is off, or they belong to a run with other
                settings.
            NonFiniteLossError: training diverged; the checkpoints of finished rounds stay.
        """
        if self.output_dir is not None:
            self._open_checkpoints(self.output_dir / CHECKPOINTS, resume)
        self.model.to(self.accelerator.device)
        check_same_weights(self.accelerator, self.model)
        while len(self.progress.records) < self.config.rounds:
            self._run_round(len(self.progress.records) + 1)
            if self.output_dir is not None and self.accelerator.is_main_process:
                save_round(self.output_dir / CHECKPOINTS, self.model, self.progress, self._settings())
            self.accelerator.wait_for_everyone()
        result = PruningResult(
            model=self.model.eval(),
            source=self.source,
            rounds=tuple(self.progress.records),
            plans=tuple(self.progress.plans),
            unit=self.cost.unit,
            output_dir=self.output_dir,
            config=self.config,
            provenance=self.provenance,
        )
        if self.output_dir is not None and self.accelerator.is_main_process:
            self._save_result(result, self.output_dir)
        self.accelerator.wait_for_everyone()
        return result

    def _run_round(self, number: int) -> None:
        clock, records = _Clock(), self.progress.records
        name = f"round {number}/{self.config.rounds}"
        size_before = self.cost(Shape.of(self.model.config))
        before = records[-1].after_recovery if records else self._evaluate(f"{name} before")
        clock.lap("evaluation")
        gates = self._train_alphas(f"{name} alphas")
        clock.lap("alphas")
        # The way from the source to the target in T equal steps: after round t a share t/T of it is done.
        left = (self.config.rounds - number) / self.config.rounds
        budget = self.budget + (self.source_size - self.budget) * left
        plan = self._decide(gates, budget)
        self._replace_model(compact(self.model, plan, tensors=fold_tensors(self.model, gates)))
        clock.lap("cut")
        after_cut = self._evaluate(f"{name} after the cut")
        clock.lap("evaluation")
        self._recover(f"{name} recovery")
        clock.lap("recovery")
        after_recovery = self._evaluate(f"{name} after recovery") if self.config.recovery_steps else after_cut
        clock.lap("evaluation")
        self.progress.plans.append(plan)
        records.append(
            RoundRecord(
                number=number,
                budget=budget,
                size_before=size_before,
                size=self.cost(plan.shape),
                before=before,
                after_cut=after_cut,
                after_recovery=after_recovery,
                shape=plan.shape,
                alphas=gates.summary(),
                seconds=clock.seconds,
            )
        )

    def _train_alphas(self, description: str) -> Gates:
        """Step 3 of Algorithm 1: min over alpha of L + gamma * penalty, every weight frozen."""
        gates = Gates(self.model.config, self.config.dimensions).to(self.accelerator.device)
        beta = penalty_weights(self.cost, Shape.of(self.model.config), gates.groups)
        self.model.requires_grad_(False)
        try:
            loop = TrainingLoop(
                self.accelerator,
                GatedObjective(self.objective, gates),
                gates.named_parameters(),
                self.config.alpha_loop(),
                penalty=lambda: self.config.gamma * gates.penalty(beta),
            )
            self._run_loop(loop, description)
        finally:
            self.model.requires_grad_(True)
        return gates

    def _recover(self, description: str) -> None:
        """Step 7: every weight of the smaller model is trained on the loss alone."""
        if self.config.recovery_steps:
            weights = self.model.named_parameters()
            loop = TrainingLoop(self.accelerator, self.objective, weights, self.config.recovery_loop())
            self._run_loop(loop, description)

    def _run_loop(self, loop: TrainingLoop, description: str) -> None:
        loop.run(self.data.stream, self.data.collator, offset=self.progress.position, description=description)
        self.progress.position += loop.config.steps * loop.config.batch_size
        self.accelerator.free_memory()

    def _decide(self, gates: Gates, budget: float) -> PruningPlan:
        """Steps 4 and 5: every process gets the plan of the main one."""
        scores = alpha_importance({group: alpha.cpu() for group, alpha in gates.values().items()})
        plan = select(scores, self.model.config, self.cost, budget, multiple_of=self.config.multiples)
        shared = [plan.to_json()]
        broadcast_object_list(shared)
        return PruningPlan.from_json(shared[0])

    def _replace_model(self, model: PreTrainedModel) -> None:
        self.model = model
        self.objective = self.make_objective(model)
        check_same_weights(self.accelerator, model)

    def _evaluate(self, description: str) -> dict[str, float]:
        set_seed(self.config.seed)  # a collator of the user's may draw its masks from the global generators
        return evaluate(
            self.accelerator,
            self.objective,
            self.data.eval_stream,
            self.data.eval_collator,
            batch_size=self.config.micro_batch_size or self.config.batch_size,
            examples=self.config.eval_examples,
            description=description,
        )

    def _settings(self) -> dict[str, Any]:
        """What a run depends on: where one differs, its checkpoints belong to another run."""
        return {
            **asdict(self.config),
            **asdict(self.source),
            "architecture": type(self.model).__name__,
            "weights": self.fingerprint,
            "train_dataset": len(self.data.stream.examples),
            "eval_dataset": len(self.data.eval_stream.examples),
        }

    def _open_checkpoints(self, folder: Path, resume: bool) -> None:
        if not resume and not self.progress.records:
            check_not_begun(folder)
        loaded = load_round(folder, self.model, self._settings()) if resume else None
        if loaded is not None:
            self.progress, self.model = loaded
            self.objective = self.make_objective(self.model)

    def _save_result(self, result: PruningResult, output: Path) -> None:
        with result_files(output) as folder, quiet():
            result.model.save_pretrained(folder)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(folder)
            write_json(folder / RECORD, result.to_json())


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now


def _own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A SchuBERT with the weights of `model`, in at least single precision."""
    copied = convert_bert(model) if model.config.model_type == "bert" else copy.deepcopy(model)
    name = type(copied).__name__
    if name not in {known.__name__ for known in MODELS.values()}:
        raise ConversionError(f"`{name}` is no SchuBERT and no BERT. Load a BERT checkpoint with `schubert_hf.load`.")
    check_tensors(copied)
    return copied.to(torch.promote_types(copied.dtype, torch.float32))
