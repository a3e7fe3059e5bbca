"""What a pruning run is made of, checked before any work: each bad input is one clear error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stream import Collator
from ..run.memory import check_memory
from ..run.processes import check_supported
from ..run.session import CHECKPOINTS, Session
from ..shape import Shape
from ..training.evaluate import evaluate
from ..training.objective import Objective, ObjectiveError, PretrainingObjective
from ..training.phase import Phases
from .budget import Budget
from .config import PruningConfig, PruningConfigError
from .data import PruningData, open_data
from .output import result_folders
from .progress import Progress
from .result import PruningResult, describe
from .teacher import check_can_be_taught, wants_teacher, with_teacher
from .weights import fingerprint, own_copy

TASKS = {"SequenceClassification": "ClassificationObjective", "QuestionAnswering": "QuestionAnsweringObjective"}
MakeObjective = Callable[[PreTrainedModel], Objective]


@dataclass(frozen=True)
class Setup:
    """Everything that a run needs and never changes, except for the costs that its budget measures.

    Attributes:
        given: the settings of the user.
        config: the same, resolved.
        accelerator: of the run.
        dense: a copy of the model; neither trained nor cut.
        make_objective: makes what is minimised from a model.
        budget: targets and cost.
        data: training and held-out examples.
        tokenizer: saved with the results.
        output_dir: for checkpoints and results; None writes nothing.
        folders: of the results, one per target; none without `output_dir`.
        provenance: for the record.
    """

    given: PruningConfig
    config: PruningConfig
    accelerator: Accelerator
    dense: PreTrainedModel
    make_objective: MakeObjective
    budget: Budget
    data: PruningData
    tokenizer: PreTrainedTokenizerBase | None
    output_dir: Path | None
    folders: list[Path]
    provenance: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it continues."""
        return {
            **self.config.identity(),
            **asdict(Shape.of(self.dense.config)),
            "architecture": type(self.dense).__name__,
            "weights": fingerprint(self.dense),
            "train_dataset": [self.data.stream.length, self.data.digests[0]],
            "eval_dataset": [self.data.eval_stream.length, self.data.digests[1]],
        }

    def open_session(self, progress: Progress) -> tuple[Session, Phases]:
        """A new session for this run, and the training in it."""
        folder = self.output_dir / CHECKPOINTS if self.output_dir is not None else None

        def name() -> str:
            done = f"round-{len(progress.records):03d}"
            return done if progress.open is None else f"{done}-{phases.phase}-{phases.step:07d}"

        keep, save_steps = self.config.keep_checkpoints, self.config.save_steps
        session = Session(
            self.accelerator, folder, {"progress": progress}, settings=self.settings(), name=name, keep=keep
        )
        phases = Phases(session, self.data.stream, self.data.collator, save_steps=save_steps)
        return session, phases

    def evaluate(self, objective: Objective, description: str) -> dict[str, float]:
        """Held-out losses and accuracies of the objective's model."""
        set_seed(self.config.seed)  # a collator of the user's may draw its masks from the global generators
        return evaluate(
            self.accelerator,
            objective,
            self.data.eval_stream,
            self.data.eval_collator,
            batch_size=self.config.micro_batch_size or self.config.batch_size,
            examples=self.config.eval_examples,
            description=description,
        )

    def result(self, model: PreTrainedModel, progress: Progress) -> PruningResult:
        """The result of the rounds that are done."""
        reached = self.budget.reached(len(progress.records))
        return PruningResult(
            model=model.eval(),
            source=Shape.of(self.dense.config),
            rounds=tuple(progress.records),
            plans=tuple(progress.plans),
            unit=self.budget.unit,
            output_dir=self.folders[reached] if reached is not None and self.folders else None,
            config=self.given,
            provenance=self.provenance,
            tokenizer=self.tokenizer,
            resolved=self.config,
        )


def check_setup(
    model: PreTrainedModel,
    given: PruningConfig,
    accelerator: Accelerator,
    make_objective: MakeObjective,
    *,
    train_dataset: Any,
    eval_dataset: Any,
    collator: Collator | None,
    tokenizer: PreTrainedTokenizerBase | None,
    output_dir: Path | None,
    provenance: Mapping[str, Any],
) -> Setup:
    """Checks all that `SchuBertPruner` is given; raises what is listed there."""
    _check_processes(accelerator, given)
    dense = own_copy(model)
    objective = _build_objective(make_objective, dense)
    config = given.resolve(type(objective))
    check_can_be_taught(objective, config)
    budget = Budget(config, dense, accelerator)
    data = open_data(
        train_dataset,
        eval_dataset,
        collator,
        tokenizer=tokenizer,
        objective=objective,
        seed=config.seed,
        accelerator=accelerator,
    )
    check_memory(  # of the first recovery: no phase needs more
        accelerator,
        with_teacher(objective, dense, (), config),
        data.sample,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        teacher=dense if wants_teacher(config) else None,
        trains=config.recovery_steps > 0,
    )
    _check_targets(budget.names, output_dir)
    return Setup(
        given=given,
        config=config,
        accelerator=accelerator,
        dense=dense,
        make_objective=make_objective,
        budget=budget,
        data=data,
        tokenizer=tokenizer,
        output_dir=output_dir,
        folders=result_folders(output_dir, budget.names),
        provenance=describe(data, accelerator, provenance),
    )


def _check_processes(accelerator: Accelerator, config: PruningConfig) -> None:
    check_supported(accelerator)
    if config.batch_size % accelerator.num_processes:
        raise PruningConfigError(
            f"`batch_size` is {config.batch_size} examples per step over {accelerator.num_processes} processes; give "
            "a multiple of the number of processes."
        )


def _check_targets(targets: Sequence[str | float], output_dir: Path | None) -> None:
    if output_dir is None and len(targets) > 1:
        raise PruningConfigError(
            f"`target` is {', '.join(map(str, targets))!r}, several sizes, and `output_dir` is None. Give a folder "
            "for them."
        )


def _build_objective(make: MakeObjective, model: PreTrainedModel) -> Objective:
    try:
        return make(model)
    except ObjectiveError as error:
        name = type(model).__name__
        head = name.partition("For")[2]
        if make is not PretrainingObjective or not head:
            raise
        task = TASKS.get(head)
        example = f", such as `schubert_hf.evaluation.objectives.{task}`," if task else ""
        raise ObjectiveError(
            f"`{name}` has no masked-language-model head, which is what is trained without an `objective`. Give the "
            f"objective of its task{example} and labelled examples, or run `examples/prune.py --task`."
        ) from error
