"""Training that evaluates as it goes: what pretraining and fine-tuning share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from ..data.stream import Collator, ExampleStream
from ..run.checkpoint import load_model
from ..run.session import CHECKPOINTS, Part, Session
from .loop import TrainingLoop
from .loop_config import LoopConfig
from .objective import Objective
from .phase import Phases
from .step import StepResult


class EvaluatedTraining(Part):
    """Trains all weights of a model in one phase; its evaluations are a part of the session.

    Args:
        eval_steps: steps between evaluations, each of which leaves a checkpoint.
        save_steps: steps between checkpoints.
        position: of the first example.
        session: `keep` and `tokenizer` of the session.

    Attributes:
        evaluations: each with its `step`, oldest first.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        stream: ExampleStream,
        collator: Collator,
        config: LoopConfig,
        *,
        output: Path,
        settings: dict[str, Any],
        eval_steps: int,
        save_steps: int,
        position: int = 0,
        **session: Any,
    ) -> None:
        self.accelerator, self.model, self.output, self.eval_steps = accelerator, objective.model, output, eval_steps
        self.loop = TrainingLoop(accelerator, objective, self.model.named_parameters(), config)
        self.evaluations: list[dict[str, Any]] = []
        self._recent: list[dict[str, float]] = []  # losses since the last evaluation
        self._began = time.monotonic()
        self.session = Session(
            accelerator,
            output / CHECKPOINTS,
            {"history": self},
            settings={**settings, "examples": len(stream.examples), "digest": stream.digest()},
            name=lambda: step_name(self.loop.step),
            **session,
        )
        self.session.model = self.model
        self.phases = Phases(self.session, stream, collator, save_steps=save_steps, position=position)

    @property
    def seconds(self) -> float:
        """Of training and evaluation, without interruptions."""
        return time.monotonic() - self._began

    def train(self, name: str, description: str, *, resume: bool) -> None:
        """Trains to the end.

        Args:
            name: of the phase.
            description: of the progress bar.
            resume: continue from the newest whole checkpoint, or begin where there is none.

        Raises:
            CheckpointError: there are checkpoints and `resume` is off, they belong to another run, or the disk refuses
                another one.
            Interrupted: by a signal; the last finished step is saved.
            NonFiniteLossError: training diverged, also at half the learning rate; the last checkpoint is whole.
        """
        if (checkpoint := self.session.open(resume=resume)) is not None:
            self.model.load_state_dict(load_model(checkpoint, self.model).state_dict())
        self.phases.run(name, self.loop, description, on_step=self._after_step)

    def evaluate_now(self, means: dict[str, float]) -> dict[str, Any]:
        """What to record of the model as it is, given the mean losses since the last evaluation."""
        raise NotImplementedError

    def record(self) -> None:
        """Adds an evaluation."""
        count, terms = len(self._recent), (self._recent or [{}])[0]
        means = {term: sum(losses[term] for losses in self._recent) / count for term in terms}
        self.evaluations.append({"step": self.loop.step, **self.evaluate_now(means)})
        self._recent = []

    def state(self) -> dict[str, Any]:
        return {"evaluations": self.evaluations, "recent": self._recent, "seconds": self.seconds}

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.evaluations, self._recent = state["evaluations"], state["recent"]
        self._began = time.monotonic() - state["seconds"]

    def _after_step(self, result: StepResult) -> bool:
        self._recent.append({**result.losses, "loss": result.loss})
        due = self.loop.step % self.eval_steps == 0 or self.loop.step == self.loop.config.steps
        if due:
            self.record()
        return due


def step_name(step: int) -> str:
    return f"step-{step:08d}"
