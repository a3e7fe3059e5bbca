"""SchuBertPruner: Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628) on Accelerate.

Each of T rounds: decide what goes, so that a T-th of the way is done (see `methods`; in Algorithm 1: train alphas
under an L1 penalty, take the smallest, fold the others into the weights); build the smaller model; train it. The plan
is that of the main process, which sends it to the others, and after every cut all must hold the same weights.
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
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..auto import MODELS
from ..conversion import ConversionError, convert_bert
from ..cost import Shape
from ..provenance import machine, versions
from ..training.checkpoint import write_json
from ..training.environment import make_accelerator
from ..training.loop import TrainingLoop, evaluate
from ..training.objective import Objective, PretrainingObjective
from ..training.output import check_output_folder, result_files
from ..training.progress import quiet
from ..training.stream import Collator
from .budget import Budget
from .checkpoint import Progress, check_not_begun, load_round, save_round
from .config import PruningConfig, PruningConfigError
from .data import open_data
from .methods import METHODS, Round
from .result import PruningResult, RoundRecord
from .selection import check_reachable
from .surgery import compact
from .teacher import check_can_be_taught, wants_teacher, with_teacher
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
        if self.config.calibration_examples < self.accelerator.num_processes:
            raise PruningConfigError(
                f"`calibration_examples` is {self.config.calibration_examples} over {self.accelerator.num_processes} "
                "processes; give at least one for each."
            )
        self.model = _own_copy(model)
        self.fingerprint = fingerprint(self.model)
        self.dense = copy.deepcopy(self.model).eval() if wants_teacher(self.config) else None
        self.make_objective = objective
        self.objective = objective(self.model)
        check_can_be_taught(self.objective, self.config)
        self.source = Shape.of(self.model.config)
        self.budget = Budget(self.config, self.model, self.accelerator)
        groups = find_groups(self.model.config, self.config.dimensions)
        cost, target = self.budget.cost, self.budget.target
        check_reachable(groups, self.model.config, cost, target, multiple_of=self.config.multiples)
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
        if self.dense is not None:
            self.dense.to(self.accelerator.device)
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
            unit=self.budget.unit,
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
        this = self._begin_round(number)
        name = this.description
        size_before = records[-1].size if records else self.budget.source_size
        before = records[-1].after_recovery if records else self._evaluate(f"{name} before")
        clock.lap("evaluation")
        decision = METHODS[self.config.method](this)
        self.progress.position += decision.examples
        clock.lap("selection")
        self.progress.plans.append(decision.plan)
        smaller = compact(self.model, decision.plan, tensors=decision.tensors)
        self._replace_model(decision.finish(smaller) if decision.finish else smaller)
        clock.lap("cut")
        after_cut = self._evaluate(f"{name} after the cut")
        clock.lap("evaluation")
        self._recover(f"{name} recovery")
        clock.lap("recovery")
        after_recovery = self._evaluate(f"{name} after recovery") if self.config.recovery_steps else after_cut
        clock.lap("evaluation")
        records.append(
            RoundRecord(
                number=number,
                budget=this.limit,
                size_before=size_before,
                size=self.budget.cost(decision.plan.shape),
                before=before,
                after_cut=after_cut,
                after_recovery=after_recovery,
                shape=decision.plan.shape,
                alphas=decision.alphas,
                seconds=clock.seconds,
            )
        )

    def _begin_round(self, number: int) -> Round:
        return Round(
            number=number,
            description=f"round {number}/{self.config.rounds}",
            model=self.model,
            objective=self.objective,
            make_objective=self.make_objective,
            config=self.config,
            accelerator=self.accelerator,
            data=self.data,
            position=self.progress.position,
            budget=self.budget,
            limit=self.budget.limit(number),
        )

    def _recover(self, description: str) -> None:
        """Step 7: every weight of the smaller model is trained, on the loss alone or with the dense one as teacher."""
        if not self.config.recovery_steps:
            return
        config = self.config.recovery_loop()
        objective = with_teacher(self.objective, self.dense, self.progress.plans, self.config)
        loop = TrainingLoop(self.accelerator, objective, self.model.named_parameters(), config)
        loop.run(self.data.stream, self.data.collator, offset=self.progress.position, description=description)
        self.progress.position += config.steps * config.batch_size
        self.accelerator.free_memory()

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
