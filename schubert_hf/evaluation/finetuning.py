"""Fine-tuning: one run on one task that evaluates, saves, keeps the best weights and goes on where it stopped.

In its folder a run has `checkpoints/step-N`, from which it goes on, and `best/step-N`, the weights of the best
evaluation up to the newest checkpoint. Weights are written before the checkpoint that speaks of them and removed after
one that no longer does, so a kill at any moment leaves both. At the end the best weights become an ordinary model
folder with `finetuning.json`, and the checkpoints are removed.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..training.checkpoint import (
    MODEL,
    CheckpointError,
    atomic_folder,
    list_checkpoints,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from ..training.environment import environment, on_main_process
from ..training.interrupt import Interrupted, InterruptGuard
from ..training.loop import StepResult, TrainingLoop
from ..training.objective import Objective
from ..training.output import result_files
from ..training.progress import quiet
from ..training.stream import Collator, ExampleStream
from .finetuning_config import FinetuningConfig
from .finetuning_result import FILE, FinetuningResult, check_settings

CHECKPOINTS, BEST = "checkpoints", "best"

__all__ = ["Finetuning", "FinetuningConfig", "FinetuningResult"]


class Finetuning:
    """One run.

    Args:
        accelerator: as `accelerate launch` configured it.
        objective: holds the model, with the head of the task; all of it is trained.
        tokenizer: saved with it.
        train_examples: by number, see `ExampleStream`.
        collator: makes batches of them.
        config: how it is trained.
        evaluate: the metrics of the model as it is; called on every process, the same on all of them.
        best_metric: the one of them, higher is better, that decides which weights are kept.
        output: folder for the result, see above.
        settings: everything else that a continuation must have in common with the run that it continues; plain JSON.
        resume: go on from the newest checkpoint; from the beginning where there is none.

    Raises:
        CheckpointError: there are checkpoints without `resume`, or they belong to a run with other settings.
        LoopConfigError: see `TrainingLoop`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        tokenizer: PreTrainedTokenizerBase,
        train_examples: Any,
        collator: Collator,
        config: FinetuningConfig,
        *,
        evaluate: Callable[[], dict[str, float]],
        best_metric: str,
        output: Path,
        settings: dict[str, Any],
        resume: bool = False,
    ) -> None:
        self.config = config = config.resolved(len(train_examples))
        self.accelerator, self.tokenizer, self.output = accelerator, tokenizer, output
        self.model: PreTrainedModel = objective.model
        self.evaluate, self.best_metric, self.collator = evaluate, best_metric, collator
        self.stream = ExampleStream(train_examples, seed=config.seed)
        self.settings = run_settings(settings, config, len(train_examples), best_metric)
        self.evaluations: list[dict[str, Any]] = []
        self.best: int | None = None  # the step
        self._losses = [0.0, 0]  # their sum and number since the last evaluation
        checkpoint = find_checkpoint(accelerator, output, resume=resume)
        if checkpoint is not None:
            check_settings(checkpoint, load_state(checkpoint).get("settings", {}), self.settings)
            load_model(self.model, checkpoint / MODEL / "model.safetensors")
        self.loop = TrainingLoop(accelerator, objective, self.model.named_parameters(), config)
        seconds = self._continue(checkpoint) if checkpoint is not None else 0.0
        self._began = time.monotonic() - seconds

    def run(self, description: str = "fine-tuning") -> FinetuningResult:
        """Trains to the end and leaves the best weights in the folder.

        Args:
            description: of the progress bar.

        Raises:
            Interrupted: by a signal; the last step that was finished is saved.
            NonFiniteLossError: see there.
            CheckpointError: the disk refuses.
        """
        with InterruptGuard(self.accelerator) as guard:

            def on_step(result: StepResult) -> None:
                self._losses = [self._losses[0] + result.loss, self._losses[1] + 1]
                last = self.loop.step == self.config.steps
                evaluated = last or self.loop.step % self.config.eval_steps == 0
                if evaluated:
                    self._evaluate()
                if evaluated or self.loop.step % self.config.save_steps == 0:
                    self._save()
                if not last:
                    guard.check()

            try:
                self.loop.run(self.stream, self.collator, on_step=on_step, description=description)
            except Interrupted:
                self._save()
                raise
            result = self._finish()
            guard.check()  # a signal that came with the last step ends what would follow
        return result

    def _continue(self, checkpoint: Path) -> float:
        state = load_state(checkpoint)
        self.evaluations, self.best, self._losses = state["evaluations"], state["best"], state["losses"]
        self.loop.load_state(state["step"], load_optimizer(checkpoint))
        return float(state["seconds"])

    def _evaluate(self) -> None:
        metrics = self.evaluate()
        if self.best_metric not in metrics:
            raise KeyError(f"`evaluate` gave {sorted(metrics)}, and not `best_metric` {self.best_metric!r}")
        values = {record["step"]: _comparable(record["metrics"][self.best_metric]) for record in self.evaluations}
        if self.best is None or _comparable(metrics[self.best_metric]) > values[self.best]:  # of equals the earlier
            self.best = self.loop.step
            if self.accelerator.is_main_process:
                self._write_best()
        total, number = self._losses
        self.evaluations.append(
            {"step": self.loop.step, "train_loss": total / number if number else None, "metrics": metrics}
        )
        self._losses = [0.0, 0]

    def _write_best(self) -> None:
        try:
            with atomic_folder(self._best_folder()) as folder, quiet():
                self.model.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise CheckpointError(
                f"The best weights cannot be written to `{self.output}`: {error}. Make room and resume."
            ) from error

    def _best_folder(self) -> Path:
        assert self.best is not None  # there was an evaluation
        return self.output / BEST / _name(self.best)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.output / CHECKPOINTS / _name(self.loop.step),
                self.model,
                state={
                    "step": self.loop.step,
                    "settings": self.settings,
                    "evaluations": self.evaluations,
                    "best": self.best,
                    "losses": self._losses,
                    "seconds": self._seconds(),
                },
                optimizer=self.loop.state_tensors(),
                keep=self.config.keep_checkpoints,
            )
            self._forget_others()
        self.accelerator.wait_for_everyone()

    def _forget_others(self) -> None:
        """Removes weights that no checkpoint calls the best any more."""
        kept = {load_state(checkpoint)["best"] for checkpoint in list_checkpoints(self.output / CHECKPOINTS)}
        for folder in (self.output / BEST).glob("*"):
            if folder.name not in {_name(step) for step in kept if step is not None}:
                shutil.rmtree(folder)

    def _finish(self) -> FinetuningResult:
        """The best weights as a model folder, on the main process; the result on all."""
        best = next(record for record in self.evaluations if record["step"] == self.best)
        result = FinetuningResult(
            evaluations=tuple(self.evaluations),
            best_step=best["step"],
            metrics=best["metrics"],
            steps=self.loop.step,
            examples=len(self.stream.examples),
            seconds=self._seconds(),
        )
        if self.accelerator.is_main_process:
            described = {"settings": self.settings, **result.to_json(), **environment(self.accelerator)}
            with result_files(self.output) as folder:
                shutil.copytree(self._best_folder(), folder, dirs_exist_ok=True)
                write_json(folder / FILE, described)
            clear(self.output)
        self.accelerator.wait_for_everyone()
        return result

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)


def run_settings(
    settings: dict[str, Any], config: FinetuningConfig, examples: int, best_metric: str
) -> dict[str, Any]:
    """All that decides what a run makes, as its files keep it."""
    own = config.resolved(examples).to_settings()
    kept: dict[str, Any] = json.loads(
        json.dumps({**settings, **own, "examples": examples, "best_metric": best_metric})
    )
    return kept


def find_checkpoint(accelerator: Accelerator, output: Path, *, resume: bool) -> Path | None:
    """The checkpoint that a run in this folder goes on from, the same on every process.

    Raises:
        CheckpointError: there is one, and no `resume`.
    """
    found = on_main_process(accelerator, lambda: str(newest_checkpoint(output / CHECKPOINTS) or ""))
    if found and not resume:
        raise CheckpointError(
            f"`{output / CHECKPOINTS}` holds checkpoints. Go on with `resume`, or give another output folder."
        )
    return Path(found) if found else None


def clear(output: Path) -> None:
    """Removes what a finished run needs no more."""
    for name in (CHECKPOINTS, BEST):
        shutil.rmtree(output / name, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _comparable(value: float) -> float:
    """A correlation of constant predictions is not a number, and the worst there is."""
    return -math.inf if math.isnan(value) else value
