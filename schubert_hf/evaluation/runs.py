"""What the scripts share: every task with every seed, or a checkpoint as it is, and the results of all in one file."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from ..run.checkpoint import check_settings, list_checkpoints, load_state
from ..run.output import OutputFolderError, check_output_folder
from ..run.provenance import machine, versions
from .finetuning import CHECKPOINTS, Finetuning, Metrics, finished
from .finetuning_config import FinetuningConfig
from .loading import load_for_task
from .results import FILE, Results, TaskResult
from .task_examples import TaskExamples


@dataclass(frozen=True)
class Runs:
    """One model on one or more tasks.

    Attributes:
        accelerator: as `accelerate launch` configured it; every process must call.
        model: a folder, or a name on the Hub.
        description: of the model, as results have it.
        tokenizer: of the model.
        config: of the fine-tuning.
        seeds: one fine-tuning each.
        output: folder; the models lie in `TASK/seed-N`.
        command: that does all this again.
    """

    accelerator: Accelerator
    model: str
    description: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    config: FinetuningConfig
    seeds: tuple[int, ...]
    output: Path
    command: str

    def run(self, tasks: Sequence[TaskExamples], *, evaluate_only: bool = False, resume: bool = False) -> Results:
        """Fine-tunes and evaluates on every task, and writes `results.json` after each.

        Args:
            tasks: to go through, in order.
            evaluate_only: evaluate the checkpoint as it is.
            resume: go on with what lies in the output folder.

        Raises:
            ValueError: bad input; see `check`, which looks at everything before anything is trained.
            Interrupted: by a signal; what was done is saved.
        """
        model = self.check(tasks, evaluate_only=evaluate_only, resume=resume)
        for task in tasks:
            found = self.evaluate(task) if evaluate_only else self.finetune(task, resume=resume)
            results = self._write(Results(model, tuple(found)))
        return results

    def check(self, tasks: Sequence[TaskExamples], *, evaluate_only: bool, resume: bool) -> dict[str, Any]:
        """Looks whether every task can be run, before the first one is.

        Returns:
            The description of the model, with its `parameters`, the task's head left out.

        Raises:
            ConversionError: the model cannot be opened, or lacks the head of a task that is only evaluated.
            CheckpointError, OutputFolderError: there is something in the output folder that `resume` does not fit.
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
        return {**self.description, "parameters": parameters}

    def _check_folder(self, task: TaskExamples, seed: int, resume: bool) -> None:
        """What an earlier run has left must be of the same settings, and `resume` be on."""
        folder, settings = self.folder(task, seed), self.settings(task, seed)
        begun = list_checkpoints(folder / CHECKPOINTS)
        for checkpoint in begun[-1:]:
            check_settings(load_state(checkpoint).get("settings", {}), settings, checkpoint)
        if (finished(folder, settings) is not None or begun) and not resume:
            what = "a model" if not begun else "checkpoints"
            raise OutputFolderError(
                f"`{folder}` already holds {what}. Go on with --resume, or give another --output-dir."
            )

    def folder(self, task: TaskExamples, seed: int) -> Path:
        return self.output / task.name / f"seed-{seed}"

    def settings(self, task: TaskExamples, seed: int) -> dict[str, Any]:
        """What a fine-tuning depends on: a continuation must have the same."""
        free = {"save_steps", "keep_checkpoints", "eval_batch_size", "workers", "micro_batch_size"}
        trained = {name: value for name, value in asdict(self.config).items() if name not in free}
        return {
            "model": self.description,
            "task": task.name,
            "max_length": task.max_length,
            "data": task.digest,
            "seed": seed,
            **trained,
        }

    def finetune(self, task: TaskExamples, *, resume: bool) -> list[TaskResult]:
        """Every seed of a task; what is finished already is read."""
        if task.train is None:
            raise EvaluationDataError(f"`{task.name}` has no training examples. Give some, or evaluate only.")
        found: list[Metrics] = []
        for seed in self.seeds:
            done = finished(self.folder(task, seed), self.settings(task, seed)) if resume else None
            found.append(done.metrics if done is not None else self._finetune_once(task, seed, resume))
        return self._results(task, found, list(self.seeds), task.train_examples)

    def evaluate(self, task: TaskExamples) -> list[TaskResult]:
        """The checkpoint as it is."""
        objective = task.objective(load_for_task(self.model, task.head, task.labels, trained=True))
        return self._results(task, [task.evaluate(self.accelerator, objective, self.config.eval_batch_size)], [], None)

    def _write(self, results: Results) -> Results:
        """Writes results beside those that lie in the output folder of the same model; gives all of them."""
        path = self.output / FILE
        if path.exists():
            results = results.merged(Results.read(path))
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            results.write(path)
        self.accelerator.wait_for_everyone()
        return results

    def _finetune_once(self, task: TaskExamples, seed: int, resume: bool) -> Metrics:
        accelerator = self.accelerator
        objective = task.objective(load_for_task(self.model, task.head, task.labels, seed=seed))
        run = Finetuning(
            accelerator,
            objective,
            self.tokenizer,
            task.train,
            task.collator,
            self.config,
            seed=seed,
            evaluate=lambda: task.evaluate(accelerator, objective, self.config.eval_batch_size),
            output=self.folder(task, seed),
            settings=self.settings(task, seed),
        )
        metrics = run.run(resume=resume).metrics
        accelerator.free_memory()
        return metrics

    def _results(
        self, task: TaskExamples, found: list[Metrics], seeds: list[int], trained: int | None
    ) -> list[TaskResult]:
        run = {
            "command": self.command,
            "settings": {**asdict(self.config), "max_length": task.max_length, **task.details},
            "data": task.origin.data or "the Hub",
            "processes": self.accelerator.num_processes,
            "precision": self.accelerator.mixed_precision,
            "versions": versions(),
            "machine": machine(),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
        results = []
        for split in task.splits:
            sliced = [note for note in (task.train_notes if trained else None, split.notes) if note]
            notes = f"{'; '.join(sliced)}: not comparable with published results" if sliced else None
            results.append(
                TaskResult(
                    task=task.name,
                    dataset=task.origin.dataset,
                    config=task.origin.config,
                    task_type=task.task_type,
                    split=split.name,
                    metrics={name: [each[split.name][name] for each in found] for name in found[0][split.name]},
                    seeds=seeds,
                    examples=split.examples,
                    train_examples=trained,
                    run=run,
                    notes=notes,
                )
            )
        return results


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a list like "0,1,2".

    Raises:
        EvaluationDataError: it is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise EvaluationDataError(f"`seeds` is {text!r}; allowed are different whole numbers with commas between.")
    return tuple(int(part) for part in parts)
