"""SchuBertPruner: Algorithm 1 of Khetan & Karnin 2020 (arXiv 2005.06628) on Accelerate.

Each of T rounds brings the model a T-th of the way to its target: scores -> plan -> compact -> restore -> recover ->
save. The main process makes the plan and sends it to the others; after every cut all must hold the same weights.

A run may be stopped at any moment: a resumed one ends as if it had never stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stream import Collator, mix_seed
from ..run.checkpoint import load_model
from ..run.memory import check_memory, explained
from ..run.processes import make_accelerator
from ..run.progress import Clock, announce, progress_bar
from ..run.provenance import environment
from ..run.session import CHECKPOINTS, Session
from ..shape import Shape
from ..training.evaluate import evaluate
from ..training.objective import Objective, PretrainingObjective
from ..training.outputs import Outputs
from ..training.phase import Phases
from .budget import Budget, resolve_dimensions
from .checks import build_objective, check_processes, check_same_weights, fingerprint, own_copy
from .config import PruningConfig
from .criteria import Scores
from .data import first_predictions, open_data, split, sum_over_processes
from .methods import METHODS, Problem
from .phases import narrowed, train_alphas, wants_teacher, with_teacher
from .plan import PruningPlan
from .recovery import Recovery
from .restoration import restore
from .result import Package, Progress, PruningResult, RoundRecord, check_empty, result_folders, write_result
from .search import Competition
from .surgery import compact
from .units import find_groups

SCORED = 4096  # tokens that units are scored on: second moments of single units need no more
PIECE = 512  # of them at once: a backward pass holds the activations of all layers


class SchuBertPruner:
    """Prunes a BERT to a budget.

    Args:
        model: a SchuBERT, or a BERT of transformers, with a masked-LM head or the head that `objective` needs. It is
            copied; half precision is trained, and returned, in float32.
        config: see `PruningConfig`.
        train_dataset: examples with `input_ids`, `token_type_ids` and, for models with a NSP head,
            `next_sentence_label`; see `data.pairs.make_pairs`. Or a `data.streaming.StreamedPairs`.
        eval_dataset: held-out examples of the same kind.
        data_collator: from examples to a masked batch; by default dynamic masking with `tokenizer`.
        tokenizer: saved and published with the result.
        output_dir: for checkpoints and results, with several targets a folder for each; None writes nothing.
        accelerator: by default one is made, as `accelerate launch` configured it.
        objective: makes what is minimised from a model; by default MLM + NSP. `Outputs()` matches the dense model.
        provenance: what the model's page should say of base model and text, as JSON.
        package: makes what every result is handed out and saved as, on the main process; by default a checkpoint.
        on_result: called on the main process with every result that has been written.
        whole: parameters that a target in percent refers to; by default the model's own.

    Raises:
        SchuBertError: all bad input raises here, before any work. `BudgetError`: the target cannot be met;
            `ConversionError`, `ObjectiveError`, `UnknownTensorError`: the model cannot be pruned, or not with this
            objective; `PruningDataError`; `MemoryLimitError`; `OutputFolderError`: it already holds a model.
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
        package: Callable[[PruningResult], Package] | None = None,
        on_result: Callable[[PruningResult], None] | None = None,
        whole: float | None = None,
    ) -> None:
        self.given, self.accelerator = config or PruningConfig(), accelerator or make_accelerator()
        check_processes(self.accelerator, self.given.batch_size)
        self.dense, self.make_objective, self.tokenizer = own_copy(model), objective, tokenizer
        self.objective = build_objective(objective, self.dense)
        self.config = resolve_dimensions(self.given.resolve(), self.dense)
        with_teacher(self.objective, self.dense, (), self.config)
        self.budget = Budget(self.config, self.dense, self.accelerator, whole)
        self.data = open_data(
            train_dataset,
            eval_dataset,
            data_collator,
            tokenizer=tokenizer,
            objective=self.objective,
            seed=self.config.seed,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        self.config = self.data.resolve(self.config, self.dense)
        if isinstance(objective, Outputs):
            temperature, seed = self.config.teacher_temperature, self.config.seed
            self.make_objective = objective.taught_by(self.dense, self.data.sample, temperature=temperature, seed=seed)
            self.objective = self.make_objective(self.dense)
        check_memory(  # of the first recovery: no phase needs more
            self.accelerator,
            with_teacher(self.objective, self.dense, (), self.config),
            self.data.sample,
            batch_size=self.config.batch_size,
            micro_batch_size=self.config.micro_batch_size,
            teacher=self.dense if self._keeps_dense else None,
            trains=self.config.recovery_steps > 0,
        )
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.folders = result_folders(self.output_dir, self.budget.names)
        self.package, self.on_result = package, on_result
        self.provenance = {
            "examples": self.data.stream.length,
            "mlm_probability": getattr(self.data.collator, "mlm_probability", None),
            **(provenance or {}),
            **environment(self.accelerator),
        }

    def prune(self, *, resume: bool = False) -> PruningResult:
        """Runs all rounds, writes the results to `output_dir`, and returns the last, smallest one.

        Args:
            resume: continue from the newest whole checkpoint, or begin where there is none.

        Raises:
            CheckpointError: there are checkpoints and `resume` is off, they belong to another run, or the disk refuses
                another one.
            Interrupted: by Ctrl-C or SIGTERM; what was trained is in a checkpoint.
            NonFiniteLossError: training diverged, also at half the learning rate; the last checkpoint is whole.
        """
        self._open_session()
        with self.session.running(), explained(self.config.micro_batch_size or self.config.batch_size):
            checkpoint = self.session.open(resume=resume)
            if not resume:
                check_empty(self.folders)
            # What is compared with the dense model is a copy of it: gates and dropout are the copy's alone.
            dense = copy.deepcopy(self.dense) if self.objective.follows_dense else self.dense
            self._replace_model(dense if checkpoint is None else load_model(checkpoint, self.dense))
            while (done := len(self.progress.records)) < self.budget.all_rounds:
                self._write_result()
                self._run_round(done + 1)
                self.session.save()
            return self._write_result()

    def _run_round(self, number: int) -> None:
        name, clock, progress = f"round {number}/{self.budget.all_rounds}", Clock(), self.progress
        if progress.open is None:
            last = progress.records[-1] if progress.records else None
            before = last.after_recovery if last else self._evaluate(f"{name} before the cut")
            progress.open = {"size_before": last.size if last else self.budget.source_size, "before": before}
        round_, clock.seconds, progress.clock = progress.open, progress.open.setdefault("seconds", {}), clock
        clock.lap("evaluation")
        if "after_cut" not in round_:
            self._cut(name, number, round_, clock)
            round_["after_cut"] = self._evaluate(f"{name} after the cut")
            clock.lap("evaluation")
        after_recovery = round_["after_cut"]
        if self.config.recovery_steps:
            taught = with_teacher(self.objective, self.dense, progress.plans, self.config)
            round_ |= self.recovery.run(taught, name)
            clock.lap("recovery")
            after_recovery = self._evaluate(f"{name} after recovery")
        clock.lap("evaluation")
        shape = progress.plans[-1].shape
        size, budget, halved = self.budget.cost(shape), self.budget.limit(number), list(self.phases.halved)
        rest = {"budget": budget, "size": size, "shape": shape, "after_recovery": after_recovery, "halved": halved}
        progress.records.append(RoundRecord(number=number, **round_, **rest))
        progress.open = None
        values = {f"round/{term}": value for term, value in {"size": size, **after_recovery}.items()}
        self.accelerator.log(values, step=self.phases.steps)
        announce(self.accelerator, progress.describe(self.budget.all_rounds, self.budget.unit))

    def _cut(self, name: str, number: int, round_: dict[str, Any], clock: Clock) -> None:
        """Steps 3 to 6 of Algorithm 1: scores -> plan -> compact -> restore."""
        config, cost, method, data = self.config, self.budget.cost, METHODS[self.config.method], self.data
        gates = train_alphas(self.phases, self.objective, cost, config, name) if method.trains_alphas else None
        examine = partial(data.calibration, self.accelerator, self.phases.position, config)
        batches, fold = examine() if method.calibrates else ([], [])
        announce(self.accelerator, f"{name} scoring units")  # which takes minutes, and has no steps to show
        sum_up, seed, make = partial(sum_over_processes, self.accelerator), mix_seed(config.seed, number), self.maker
        groups = find_groups(self.model.config, config.dimensions)
        looked = split(PIECE, first_predictions(SCORED, batches, self.objective, sum_up), self.accelerator.device)
        projects = "e" in config.dimensions and not self.model.config.project_embeddings
        scored = method.score(Problem(self.model, make, groups, cost, looked, sum_up, gates, seed, projects))

        def choose(scores: Scores) -> PruningPlan:
            select = partial(method.select, scores, scored.cut_by(scores).config, multiple_of=config.multiples)
            return self.budget.choose(self.budget.limit(number), select)

        if method.calibrates:
            self.phases.skip(config.calibration_size)
            rivals = Competition(scored, make, choose, batches, fold, sum_up)
            bar = progress_bar(self.accelerator, None, f"{name} comparing plans", unit=" plans")
            plan, round_["candidates"] = rivals.run(bar), rivals.tried
            self.budget.settle(plan)
            del rivals  # and the dense predictions that it holds
        else:
            plan = choose(scored.scores)
        clock.lap("selection")
        source = scored.source_of(plan)
        smaller = compact(source, plan, tensors=scored.tensors)
        if method.calibrates:
            smaller = restore(smaller, source, plan, batches, fold=fold, reduce=sum_up)
        self.progress.plans.append(plan)
        round_["alphas"] = gates.summary() if gates is not None else {}
        self._replace_model(smaller)
        clock.lap("cut")

    def _replace_model(self, model: PreTrainedModel) -> None:
        self.model = self.session.model = model.to(self.accelerator.device)
        self.objective = self.maker(model)
        if model is not self.dense:  # only a teacher has to stay on the device
            self.dense.to(self.accelerator.device if self._keeps_dense else "cpu")
        check_same_weights(self.accelerator, model)

    @property
    def maker(self) -> Callable[[PreTrainedModel], Objective]:
        """Makes the objective of the model as it is after the cuts so far."""
        return reduce(narrowed, self.progress.plans, self.make_objective)

    @property
    def _keeps_dense(self) -> bool:
        return self.objective.follows_dense or wants_teacher(self.config)

    def _evaluate(self, description: str) -> dict[str, float]:
        """Held-out losses and accuracies."""
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

    def _write_result(self) -> PruningResult:
        """The result of the rounds that are done; written, where they have met a target."""
        reached = self.budget.reached(len(self.progress.records))
        result = PruningResult(
            model=self.model.eval().requires_grad_(True),  # objectives freeze what their loss does not reach
            source=Shape.of(self.dense.config),
            rounds=tuple(self.progress.records),
            plans=tuple(self.progress.plans),
            unit=self.budget.unit,
            output_dir=self.folders[reached] if reached is not None and self.folders else None,
            config=self.given,
            provenance=self.provenance,
            tokenizer=self.tokenizer,
            resolved=self.config,
        )
        if reached is not None and self.package is not None and self.accelerator.is_main_process:
            result = replace(result, package=self.package(result))
        with self.session.guard.deferred():
            if self.accelerator.is_main_process and write_result(result) and self.on_result is not None:
                self.on_result(result)
            self.accelerator.wait_for_everyone()
        return result

    def _open_session(self) -> None:
        """A new session, and what it saves: progress and training."""
        progress, config, data = Progress(), self.config, self.data
        settings = {  # what a resumed run must have in common with the one that it continues
            **config.identity(),
            "calibration_examples": self.given.calibration_examples,  # None follows from the model and the data
            **asdict(Shape.of(self.dense.config)),
            "architecture": type(self.dense).__name__,
            "outputs": list(self.objective.terms) if self.objective.follows_dense else None,
            "weights": fingerprint(self.dense),
            "train_dataset": [data.stream.length, data.digests[0]],
            "eval_dataset": [data.eval_stream.length, data.digests[1]],
        }

        def name() -> str:
            done = f"round-{len(progress.records):03d}"
            return done if progress.open is None else f"{done}-{phases.phase}-{phases.step:07d}"

        folder, keep = self.output_dir / CHECKPOINTS if self.output_dir else None, config.keep_checkpoints
        session = Session(self.accelerator, folder, {"progress": progress}, settings=settings, name=name, keep=keep)
        phases = Phases(session, data.stream, data.collator, save_steps=config.save_steps)
        self.progress, self.session, self.phases, self.recovery = progress, session, phases, Recovery(phases, config)
