"""Fine-tuning: trains on a task, evaluates, keeps the best model, stops on a signal and goes on where it stopped."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from ..data.stream import Collator, ExampleStream
from ..run.checkpoint import (
    MODEL,
    CheckpointError,
    atomic_folder,
    check_settings,
    list_checkpoints,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from ..run.interrupt import Interrupted, InterruptGuard
from ..run.output import FINETUNING_RECORD, MARKER, check_output_folder, result_files
from ..run.processes import on_main_process
from ..run.progress import quiet
from ..training.loop import TrainingLoop
from ..training.step import StepResult
from .finetuning_config import FinetuningConfig
from .objectives import TaskObjective

logger = logging.getLogger(__name__)
CHECKPOINTS, BEST = "checkpoints", "best"
Metrics = dict[str, dict[str, float]]  # by split, the main split first, its main metric first


@dataclass(frozen=True)
class FinetuningResult:
    """What a fine-tuning leaves beside the model.

    Attributes:
        metrics: of the best model, by split.
        best_step: after which step that was.
        steps: all that were taken.
        evaluations: `step`, `train_loss` since the last one, and `metrics`, each time.
        seconds: of training and evaluation, interruptions left out.
    """

    metrics: Metrics
    best_step: int
    steps: int
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Finetuning:
    """One run, from one checkpoint, with one seed.

    Args:
        accelerator: as `accelerate launch` configured it.
        objective: with the model, and its head.
        tokenizer: saved with it.
        train: encoded examples.
        collator: makes batches of them.
        config: how it is trained.
        seed: of order and dropout.
        evaluate: the metrics of the model as it is; called on every process. The first is what models are chosen by:
            the larger the better, of equal ones the earlier.
        output: folder for the best model; its `checkpoints` for the checkpoints.
        settings: everything that a continuation must have in common with the run that it continues; plain JSON.
        base_model: what the model's page says of the checkpoint that was fine-tuned.

    Raises:
        LoopConfigError: the settings do not fit the number of processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: TaskObjective,
        tokenizer: PreTrainedTokenizerBase,
        train: Any,
        collator: Collator,
        config: FinetuningConfig,
        *,
        seed: int,
        evaluate: Callable[[], Metrics],
        output: Path,
        settings: dict[str, Any],
        base_model: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator, self.model, self.tokenizer = accelerator, objective.model, tokenizer
        self.stream, self.collator = ExampleStream(train, seed=seed), collator
        self.config, self.output, self.evaluate = config, output, evaluate
        self.loop = TrainingLoop(
            accelerator, objective, objective.model.named_parameters(), config.loop(len(train), seed)
        )
        self.every = config.eval_steps or config.steps_per_epoch(len(train))
        self.settings = json.loads(json.dumps({**settings, "seed": seed, "examples": len(train)}))
        self.base_model = base_model or {}
        self.history: dict[str, Any] = {"evaluations": [], "seconds": 0.0, "losses": []}

    def run(self, *, resume: bool = False) -> FinetuningResult:
        """Trains to the end; `output` then holds the best model, and what is returned in `finetuning.json`.

        Args:
            resume: go on after the newest whole checkpoint, or begin where there is none.

        Raises:
            CheckpointError: checkpoints lie in `output` and `resume` is off, they belong to a run with other settings,
                or the disk refuses another one.
            Interrupted: by a signal; the last finished step is saved, and after the last of all the model.
            NonFiniteLossError: training diverged; the last checkpoint is whole.
            OutputFolderError: `output` already holds a model.
        """
        check_output_folder(self.output)
        self._open(resume)
        self._began = time.monotonic() - self.history["seconds"]
        with InterruptGuard(self.accelerator) as guard:

            def on_step(taken: StepResult) -> None:
                self.history["losses"].append(taken.loss)
                last = self.loop.step == self.loop.config.steps
                if last or self.loop.step % self.every == 0:
                    self._evaluate()
                    self._save()
                elif self.loop.step % self.config.save_steps == 0:
                    self._save()
                if not last:
                    guard.check()

            try:
                self.loop.run(self.stream, self.collator, on_step=on_step, description=self.output.name)
            except Interrupted:
                self._save()
                raise
            result = self._finish()
            guard.check()  # a signal in the last step ends what would come after this run
        return result

    def _open(self, resume: bool) -> None:
        folder = self.output / CHECKPOINTS

        def find() -> str | None:
            newest = newest_checkpoint(folder)
            if newest is not None and not resume:
                raise CheckpointError(f"`{folder}` holds checkpoints. Go on with --resume, or give another folder.")
            return None if newest is None else newest.name

        name = on_main_process(self.accelerator, find)
        if name is not None:
            self._continue(folder / name)

    def _continue(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        check_settings(state.get("settings", {}), self.settings, checkpoint)
        weights = load_file(checkpoint / MODEL / "model.safetensors")
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(weights[name])
        self.history = state["history"]
        self.loop.load_state(state["step"], load_optimizer(checkpoint))
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            logger.warning("Going on from step %d of %s.", self.loop.step, checkpoint.name)

    def _evaluate(self) -> None:
        metrics = self.evaluate()
        losses = self.history["losses"]
        before = [_rank(entry) for entry in self.history["evaluations"]]
        self.history["evaluations"].append(
            {"step": self.loop.step, "train_loss": sum(losses) / max(1, len(losses)), "metrics": metrics}
        )
        self.history["losses"] = []
        if not before or _rank(self.history["evaluations"][-1]) > max(before):
            self._keep_best()

    def _keep_best(self) -> None:
        """Written before a checkpoint tells of it, beside the best so far: a run may yet go on from before."""
        if self.accelerator.is_main_process:
            try:
                with atomic_folder(self._weights(self.loop.step)) as folder, quiet():
                    self.model.save_pretrained(folder)
                    self.tokenizer.save_pretrained(folder)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"The best weights cannot be written below `{self.output}`: {error}. The checkpoints are whole: "
                    "make room and resume."
                ) from error
        self.accelerator.wait_for_everyone()

    def _weights(self, step: int) -> Path:
        return self.output / BEST / f"step-{step:08d}"

    def _forget_weights(self) -> None:
        """Removes weights that no checkpoint's evaluations call the best."""
        histories = [load_state(folder)["history"] for folder in list_checkpoints(self.output / CHECKPOINTS)]
        best = {self._weights(_best(each["evaluations"])["step"]) for each in histories if each["evaluations"]}
        for folder in set((self.output / BEST).glob("step-*")) - best:
            shutil.rmtree(folder)

    def _save(self) -> None:
        self.history["seconds"] = time.monotonic() - self._began
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save_checkpoint(
                self.output / CHECKPOINTS / f"step-{self.loop.step:08d}",
                self.model,
                state={
                    "step": self.loop.step,
                    "settings": self.settings,
                    "history": self.history,
                    "scaler": scaler.state_dict() if scaler is not None else None,
                },
                optimizer=self.loop.state_tensors(),
                keep=self.config.keep_checkpoints,
            )
            self._forget_weights()
        self.accelerator.wait_for_everyone()

    def _finish(self) -> FinetuningResult:
        evaluations = self.history["evaluations"]
        best = _best(evaluations)
        result = FinetuningResult(
            best["metrics"], best["step"], self.loop.step, evaluations, round(self.history["seconds"], 1)
        )
        if self.accelerator.is_main_process:
            with result_files(self.output) as folder:
                shutil.copytree(self._weights(best["step"]), folder, dirs_exist_ok=True)
                write_json(
                    folder / FINETUNING_RECORD,
                    {"settings": self.settings, "base_model": self.base_model, **asdict(result)},
                )
            for leftover in (BEST, CHECKPOINTS):  # the optimizer's state is twice the model, and no use any more
                shutil.rmtree(self.output / leftover, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        return result


def _best(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    return max(evaluations, key=_rank)  # of equal ones the first


def _rank(evaluation: dict[str, Any]) -> float:
    """What models are chosen by: the first metric of the first split; what is no number comes last."""
    value: float = next(iter(next(iter(evaluation["metrics"].values())).values()))
    return -math.inf if math.isnan(value) else value


def finished(output: Path, settings: dict[str, Any]) -> FinetuningResult | None:
    """The result of a run that has come to its end in `output`; None where there is none.

    Args:
        output: its folder.
        settings: those of now; of the recorded ones, what is in both must be the same.

    Raises:
        CheckpointError: it had other settings, or its record cannot be read.
    """
    if not (output / MARKER).exists():
        return None
    try:
        record = json.loads((output / FINETUNING_RECORD).read_text(encoding="utf-8"))
        before = record.pop("settings")
        record.pop("base_model", None)  # for the page
        result = FinetuningResult(**record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"`{output}` holds a model and no record of its fine-tuning: {error}. Give another output folder."
        ) from error
    check_settings(before, settings, output)
    return result
