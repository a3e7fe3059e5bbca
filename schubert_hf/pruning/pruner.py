"""SchuBertPruner: Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628) on Accelerate.

Each of T rounds: decide what goes, so that a T-th of the way is done (see `methods`; in Algorithm 1: train alphas
under an L1 penalty, take the smallest, fold the others into the weights); build the smaller model; train it. The plan
is that of the main process, which sends it to the others, and after every cut all must hold the same weights.

A run may be stopped at any instant. What it does is a function of its settings, the data and the last checkpoint, so
that one which goes on ends as if it had never stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stream import Collator
from ..run.interrupt import InterruptGuard
from ..run.memory import check_memory
from ..run.processes import check_supported, make_accelerator
from ..run.progress import Clock
from ..shape import Shape
from ..training.loop import TrainingLoop, evaluate
from ..training.objective import Objective, PretrainingObjective
from .budget import Budget
from .checkpoint import OpenRound, Progress
from .config import PruningConfig, PruningConfigError
from .data import open_data
from .methods import METHODS, Round
from .phases import RECOVERY, PhaseRunner
from .result import PruningResult, RoundRecord, describe
from .run_folder import RunFolder, result_folders
from .selection import check_reachable
from .surgery import compact
from .teacher import check_can_be_taught, wants_teacher, with_teacher
from .units import find_groups
from .weights import check_same_weights, fingerprint, own_copy


class SchuBertPruner:
    """Prunes a BERT to a budget.

    Args:
        model: a SchuBERT, or a BERT of transformers, with a masked-LM head. It is copied, not touched; half precision
            is trained, and given back, in float32.
        config: see `PruningConfig`.
        train_dataset: examples with `input_ids`, `token_type_ids` and, for models with a NSP head,
            `next_sentence_label`; see `data.pairs.make_pairs`. Or a `data.streaming.StreamedPairs`.
        eval_dataset: held-out examples of the same kind.
        data_collator: from examples to a masked batch; by default dynamic masking with `tokenizer`.
        tokenizer: saved with the result.
        output_dir: where checkpoints and result are written; None writes nothing. With several targets each result
            has its folder in it.
        accelerator: by default one is made, as `accelerate launch` configured it.
        objective: makes what is minimised from a model; by default MLM + NSP.
        provenance: what the model's page should say of base model and text, as JSON; recorded beside versions and
            machine.
        on_result: called on the main process with every result that has been written.

    Raises:
        BudgetError: the target cannot be met. Like all errors of bad input it is raised here, before any work.
        ConversionError, ObjectiveError, UnknownTensorError: the model is none that can be pruned.
        PruningDataError: the data does not fit the model.
        MemoryLimitError: training needs more memory than the device has.
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
        on_result: Callable[[PruningResult], None] | None = None,
    ) -> None:
        self.config = config or PruningConfig()
        self.accelerator = accelerator or make_accelerator()
        check_supported(self.accelerator)
        if self.config.batch_size % self.accelerator.num_processes:
            raise PruningConfigError(
                f"`batch_size` is {self.config.batch_size} examples per step over {self.accelerator.num_processes} "
                "processes; give a multiple of the number of processes."
            )
        self.model = own_copy(model)
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
            accelerator=self.accelerator,
        )
        check_memory(  # of the first recovery: no phase needs more
            self.accelerator,
            with_teacher(self.objective, self.dense, (), self.config),
            self.data.sample,
            batch_size=self.config.batch_size,
            micro_batch_size=self.config.micro_batch_size,
            teacher=self.dense,
            trains=self.config.recovery_steps > 0,
        )
        self.output_dir = Path(output_dir) if output_dir is not None else None
        if self.output_dir is None and len(self.budget.targets) > 1:
            raise PruningConfigError(
                f"`target` is {self.config.target!r}, several sizes, and `output_dir` is None. Give a folder for them."
            )
        self.folders = result_folders(self.output_dir, self.budget.names)
        self.on_result = on_result
        keep = self.config.keep_checkpoints
        self.folder = RunFolder(self.output_dir, self.folders, self.accelerator, self._settings, keep)
        self.provenance = describe(self.data, self.accelerator, provenance or {})
        self.progress = Progress()

    def prune(self, *, resume: bool = False) -> PruningResult:
        """Runs all rounds, writes the results to `output_dir`, and returns the last, smallest one.

        Args:
            resume: go on after the newest whole checkpoint, or begin where there is none.

        Raises:
            CheckpointError: checkpoints lie in `output_dir` and `resume` is off, they belong to a run with other
                settings, or the disk refuses another one.
            Interrupted: by Ctrl-C or SIGTERM; what had been trained is in a checkpoint.
            NonFiniteLossError: training diverged, also at half the learning rate; the last checkpoint is whole.
        """
        with InterruptGuard(self.accelerator, at_once=True) as self.guard:
            if not self.progress.records:
                self._go_on(resume)
            self.model.to(self.accelerator.device)
            if self.dense is not None:
                self.dense.to(self.accelerator.device)
            check_same_weights(self.accelerator, self.model)
            while (done := len(self.progress.records)) < self.budget.all_rounds:
                self._finish(done)
                self._run_round(done + 1)
                self._save()
            return self._finish(done)

    def _run_round(self, number: int) -> None:
        clock, this = Clock(), self._begin_round(number)
        if self.progress.open is None:
            self.progress.open = self._open_round(this)
        current = self.progress.open
        clock.seconds = current.seconds
        clock.lap("evaluation")
        if current.after_cut is None:
            self._cut(this, current, clock)
        if self.config.recovery_steps:
            self._recover(f"{this.description} recovery")
        clock.lap("recovery")
        after_recovery = current.after_cut or {}
        if self.config.recovery_steps:
            after_recovery = self._evaluate(f"{this.description} after recovery")
        clock.lap("evaluation")
        shape = self.progress.plans[-1].shape
        record = RoundRecord(
            number=number,
            budget=this.limit,
            size_before=current.size_before,
            size=self.budget.cost(shape),
            before=current.before,
            after_cut=current.after_cut or {},
            after_recovery=after_recovery,
            shape=shape,
            alphas=current.alphas,
            seconds=clock.seconds,
            halved=list(self.progress.halved),
        )
        self.progress.records.append(record)
        self.progress.open = None
        values = {"size": record.size, **record.after_recovery}
        self.accelerator.log({f"round/{name}": value for name, value in values.items()}, step=self.progress.steps)

    def _open_round(self, this: Round) -> OpenRound:
        records = self.progress.records
        return OpenRound(
            size_before=records[-1].size if records else self.budget.source_size,
            before=records[-1].after_recovery if records else self._evaluate(f"{this.description} before"),
        )

    def _cut(self, this: Round, current: OpenRound, clock: Clock) -> None:
        """Decides what goes, and replaces the model by the smaller one."""
        decision = METHODS[self.config.method](this)
        self.progress.position += decision.examples
        if decision.examples:
            self.progress.data_state = self.data.state_everywhere(self.data.state())
        clock.lap("selection")
        self.progress.plans.append(decision.plan)
        smaller = compact(self.model, decision.plan, tensors=decision.tensors)
        self._replace_model(decision.finish(smaller) if decision.finish else smaller)
        clock.lap("cut")
        current.alphas = decision.alphas
        current.after_cut = self._evaluate(f"{this.description} after the cut")
        clock.lap("evaluation")

    def _begin_round(self, number: int) -> Round:
        return Round(
            number=number,
            description=f"round {number}/{self.budget.all_rounds}",
            model=self.model,
            objective=self.objective,
            make_objective=self.make_objective,
            config=self.config,
            accelerator=self.accelerator,
            data=self.data,
            position=self.progress.position,
            budget=self.budget,
            limit=self.budget.limit(number),
            run_phase=lambda *phase: self.phases.run(*phase),
        )

    def _recover(self, description: str) -> None:
        """Step 7: every weight of the smaller model is trained, on the loss alone or with the dense one as teacher."""
        objective = with_teacher(self.objective, self.dense, self.progress.plans, self.config)
        loop = TrainingLoop(self.accelerator, objective, self.model.named_parameters(), self.config.recovery_loop())
        self.phases.run(RECOVERY, loop, description)
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
            "train_dataset": self.data.stream.length,
            "eval_dataset": self.data.eval_stream.length,
        }

    def _go_on(self, resume: bool) -> None:
        """Takes up what an earlier process has left."""
        resumed = self.folder.open(self.model, resume=resume)
        if resumed is not None:
            self.progress, self.model = resumed.progress, resumed.model
            self.objective = self.make_objective(self.model)
            self.data.go_on(self.progress.data_state)
        self.phases = PhaseRunner(self.accelerator, self.config, self.data, self.progress, self.guard, self._save)
        if resumed is not None and self.progress.open is not None:
            self.phases.resumed = resumed.tensors

    def _save(self, tensors: dict[str, Tensor] | None = None) -> None:
        with self.guard.deferred():
            self.folder.save(self.model, self.progress, tensors)

    def _finish(self, done: int) -> PruningResult:
        """The result of the rounds that are done; written, where they have met a target."""
        reached = self.budget.reached(done)
        result = PruningResult(
            model=self.model.eval(),
            source=self.source,
            rounds=tuple(self.progress.records),
            plans=tuple(self.progress.plans),
            unit=self.budget.unit,
            output_dir=self.folders[reached] if reached is not None and self.folders else None,
            config=self.config,
            provenance=self.provenance,
        )
        if reached is not None:
            with self.guard.deferred():
                written = self.folder.save_result(result, self.tokenizer)
                if written and self.on_result is not None:
                    self.on_result(result)
                self.accelerator.wait_for_everyone()
        return result
