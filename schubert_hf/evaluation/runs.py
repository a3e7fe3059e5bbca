"""What the evaluation scripts share: every task with every seed, or a checkpoint as it is; all results in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from ..run.checkpoint import check_settings, list_checkpoints, load_state
from ..run.output import OutputFolderError, check_output_folder
from ..run.session import CHECKPOINTS
from .finetuning import Finetuning, Metrics, finished
from .finetuning_config import FinetuningConfig
from .loading import load_for_task
from .results import FILE, Evaluation, Results, describe_run, identity
from .task_examples import TaskExamples


@dataclass(frozen=True)
class Runs:
    """One model on one or more tasks; every process must call."""

    accelerator: Accelerator
    model: str  # a folder, or a name on the Hub
    description: dict[str, Any]  # what `provenance.base_model` says of the model
    tokenizer: PreTrainedTokenizerBase
    config: FinetuningConfig
    seeds: tuple[int, ...]  # one fine-tuning each
    output: Path  # models are saved in `TASK/seed-N` of this folder
    command: str  # reproduces the runs

    def run(self, tasks: Sequence[TaskExamples], *, evaluate_only: bool = False, resume: bool = False) -> Results:
        """Fine-tunes on every task unless `evaluate_only`, evaluates, and writes `results.json` after each.

        Raises:
            ValueError: bad input; `check` reports it before training starts.
            Interrupted: by a signal; finished work is saved.
        """
        results = self.check(tasks, evaluate_only=evaluate_only, resume=resume)
        for task in tasks:
            results = results.updated(self.evaluate(task) if evaluate_only else self.finetune(task, resume=resume))
            if self.accelerator.is_main_process:
                results.write(self.output / FILE)
            self.accelerator.wait_for_everyone()
        return results

    def check(self, tasks: Sequence[TaskExamples], *, evaluate_only: bool, resume: bool) -> Results:
        """Checks that every task can be run, before the first one is.

        Returns:
            The results of this model that the output folder already holds.

        Raises:
            ConversionError: the model cannot be loaded, or lacks the head of a task that is only evaluated.
            CheckpointError, OutputFolderError: the output folder holds something that `resume` does not fit.
            ResultsError: the output folder holds results of another model.
            EvaluationDataError: there are no tasks, or examples are longer than the model can read.
        """
        if not tasks:
            raise EvaluationDataError("There is no task to run. Give at least one.")
        check_output_folder(self.output)
        parameters = 0
        for task in tasks:
            model = load_for_task(self.model, task.head, task.labels, trained=evaluate_only)
            parameters = model.config.num_parameters()  # with its pooler, whatever the head
            if task.max_length > model.config.max_position_embeddings:
                raise EvaluationDataError(
                    f"`max_length` is {task.max_length}; the model reads at most "
                    f"{model.config.max_position_embeddings} word pieces. Give a smaller one."
                )
            for seed in self.seeds if not evaluate_only else ():
                self._check_folder(task, seed, resume)
        return Results.open(self.output, {**self.description, "parameters": parameters})

    def _check_folder(self, task: TaskExamples, seed: int, resume: bool) -> None:
        """What an earlier run left must have the same settings, and `resume` be on."""
        folder, settings = self.folder(task, seed), self.settings(task, seed)
        begun = list_checkpoints(folder / CHECKPOINTS)
        if begun:
            check_settings(load_state(begun[-1]).get("settings", {}), settings, begun[-1])
        if (finished(folder, settings) is not None or begun) and not resume:
            what = "checkpoints" if begun else "a model"
            raise OutputFolderError(
                f"`{folder}` already holds {what}. Continue with --resume, or give another --output-dir."
            )

    def folder(self, task: TaskExamples, seed: int) -> Path:
        return self.output / task.name / f"seed-{seed}"

    def settings(self, task: TaskExamples, seed: int) -> dict[str, Any]:
        """What a fine-tuning depends on: a resumed run must have the same."""
        free = {"save_steps", "keep_checkpoints", "eval_batch_size", "workers", "micro_batch_size"}
        trained = {name: value for name, value in asdict(self.config).items() if name not in free}
        of_task = {"task": task.name, "max_length": task.max_length, "data": task.digest}
        return {"model": identity(self.description), **of_task, "seed": seed, **trained}

    def finetune(self, task: TaskExamples, *, resume: bool) -> list[Evaluation]:
        """Every seed of a task; what is already finished is read."""
        if task.train is None:
            raise EvaluationDataError(f"`{task.name}` has no training examples. Give some, or evaluate only.")
        metrics: list[Metrics] = []
        for seed in self.seeds:
            output, settings = self.folder(task, seed), self.settings(task, seed)
            done = finished(output, settings) if resume else None
            if done is None:
                objective = task.objective(load_for_task(self.model, task.head, task.labels, seed=seed))
                done = Finetuning(
                    self.accelerator,
                    objective,
                    self.tokenizer,
                    task.train,
                    task.collator,
                    self.config,
                    seed=seed,
                    evaluate=partial(task.evaluate, self.accelerator, objective, self.config.eval_batch_size),
                    output=output,
                    settings=settings,
                    base_model=self.description,
                ).run(resume=resume)
                self.accelerator.free_memory()
            metrics.append(done.metrics)
        return self._evaluations(task, metrics, list(self.seeds))

    def evaluate(self, task: TaskExamples) -> list[Evaluation]:
        """The checkpoint as it is."""
        objective = task.objective(load_for_task(self.model, task.head, task.labels, trained=True))
        metrics = task.evaluate(self.accelerator, objective, self.config.eval_batch_size)
        return self._evaluations(task, [metrics], [])

    def _evaluations(self, task: TaskExamples, metrics: list[Metrics], seeds: list[int]) -> list[Evaluation]:
        """One for each split; without seeds the model was not trained."""
        settings = {**asdict(self.config), "max_length": task.max_length, **task.details}
        data = task.data.resolve().name if task.data else "the Hub"
        run = describe_run(self.accelerator, self.command, settings, data)
        return [
            Evaluation(
                task=task.name,
                dataset=task.dataset,
                config=task.config,
                task_type=task.objective.task_type,
                split=split,
                metrics={name: [each[split][name] for each in metrics] for name in metrics[0][split]},
                seeds=seeds,
                examples=task.sizes[split][0],
                train_examples=task.sizes["train"][0] if seeds else None,
                run=run,
                notes=task.notes("train", split) if seeds else task.notes(split),
            )
            for split in task.splits
        ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a list like "0,1,2".

    Raises:
        EvaluationDataError: it is not such a list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise EvaluationDataError(f"`seeds` is {text!r}; allowed are distinct whole numbers, separated by commas.")
    return tuple(int(part) for part in parts)
