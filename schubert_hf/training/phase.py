"""Phases of training in a session: each can be stopped at any step, resumes there, and survives a bad step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from ..data.stream import Collator, Stream
from ..run.interrupt import Interrupted
from ..run.session import Part, Session
from .loop import TrainingLoop
from .step import NonFiniteLossError, StepResult

logger = logging.getLogger(__name__)


class Phases(Part):
    """Trains one phase after another on a stream, from its beginning.

    Should a loss or a gradient not be finite, everything returns to the last good state (the last checkpoint's, or
    the beginning of the phase) and continues at half the learning rate, which holds for all later phases of that name.
    If that does not help, it is an error.

    Args:
        session: of the run; this becomes its part "training".
        stream: of training examples.
        collator: makes batches of them.
        save_steps: steps of a phase between checkpoints.
        position: of the first example in the stream.

    Attributes:
        position: of the next example in the stream, at the beginning of the current phase.
        steps: of training, in all finished phases.
        phase: the name of the current one; None between two.
        halved: names of phases that run at half the learning rate.
    """

    def __init__(
        self, session: Session, stream: Stream, collator: Collator, *, save_steps: int, position: int = 0
    ) -> None:
        self.session, self.accelerator = session, session.accelerator
        self.stream, self.collator, self.save_steps = stream, collator, save_steps
        self.position, self.steps = position, 0
        self.phase: str | None = None
        self.halved: list[str] = []
        self._step = 0
        self._loop: TrainingLoop | None = None
        self._resumed: dict[str, Tensor] | None = None  # what the phase continues with
        self._places: list[dict[str, Any]] | None = None  # of all processes in the stream, by rank
        stream.load_state(None)
        session.parts["training"] = self

    @property
    def step(self) -> int:
        """How many steps of the current phase are done."""
        return self._step if self._loop is None else self._loop.step

    def state(self) -> dict[str, Any]:
        if self._loop is not None:
            self._gather(self._loop.data_state)
        return {
            "position": self.position,
            "steps": self.steps,
            "phase": self.phase,
            "step": self.step,
            "halved": self.halved,
            "data_state": self._places,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Of the optimizer, and what is trained where it is no part of the model, such as alphas."""
        if self._loop is None:
            return {}
        weights = {id(parameter) for parameter in self.session.model.parameters()}
        apart = any(id(parameter) not in weights for parameter in self._loop.parameters)
        return self._loop.state_tensors(parameters=apart)

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.position, self.steps, self.halved = state["position"], state["steps"], state["halved"]
        self.phase, self._step, self._places = state["phase"], state["step"], state["data_state"]
        self._resumed = tensors
        self.stream.load_state(self._places)

    @property
    def places(self) -> list[dict[str, Any]] | None:
        """Of all processes, by rank, in a stream that is read in order, at the beginning of the current phase."""
        return self._places

    def save(self, name: str) -> None:
        """A checkpoint before work outside of any phase, under a name of its own; none where it was resumed from."""
        if self.phase != name:
            self.phase, self._step = name, 0
            self.session.save()

    def skip(self, examples: int, place: dict[str, Any] | None = None) -> None:
        """Accounts for examples that were read from the stream outside of any phase; `place`: where that ended."""
        self.position += examples
        self._gather(place or self.stream.state())

    def run(
        self,
        name: str,
        loop: TrainingLoop,
        description: str,
        *,
        setting: str = "learning_rate",
        on_step: Callable[[StepResult], bool] | None = None,
        watch: Callable[[], dict[str, float]] | None = None,
        save_first: bool = False,
    ) -> None:
        """Trains a phase to its end.

        Args:
            name: of the phase.
            loop: not yet begun.
            description: of the progress bar.
            setting: what the user calls its learning rate.
            on_step: called after each step; whether a checkpoint is due now.
            watch: more values for the trackers after each step.
            save_first: write a checkpoint before the first step.

        Raises:
            Interrupted: by a signal, on every process; the last step is in a checkpoint.
            NonFiniteLossError: half the learning rate did not help.
        """

        def after_step(result: StepResult) -> None:
            if self.accelerator.trackers:
                values = {**result.to_log(), **(watch() if watch is not None else {})}
                values = {f"{name}/{key}": value for key, value in values.items()}
                self.accelerator.log(values, step=self.steps + result.step)
            due = on_step(result) if on_step is not None else False
            last = loop.step == loop.config.steps
            due |= loop.step % self.save_steps == 0 and not last
            if due:
                self.session.save()
            if not last:
                if due:
                    self._remember(loop)
                self.session.guard.check()

        with self.session.guard.deferred():
            self._begin(name, loop, save_first)
            while loop.step < loop.config.steps:
                try:
                    loop.run(
                        self.stream, self.collator, offset=self.position, on_step=after_step, description=description
                    )
                except Interrupted:
                    self.session.save()
                    raise
                except NonFiniteLossError as error:
                    if name in self.halved:
                        raise NonFiniteLossError(
                            f"{description}: {error} Half the learning rate did not help. The last checkpoint is "
                            f"whole; start again with a lower `{setting}`, or check the data."
                        ) from error
                    self._go_back(name, loop)
                    if self.accelerator.is_main_process:
                        message = "%s: %s Resuming from step %d with half the learning rate."
                        logger.warning(message, description, error, loop.step)
            self._gather(loop.data_state)
            self.stream.load_state(self._places)  # a worker process may have read the examples
            self.position += loop.config.steps * loop.config.batch_size
            self.steps += loop.config.steps
            self.phase, self._step, self._loop = None, 0, None

    def _begin(self, name: str, loop: TrainingLoop, save_first: bool) -> None:
        if name in self.halved:
            loop.learning_rate /= 2
        if self._resumed is not None and self.phase == name:
            loop.load_state(self._step, self._resumed)
            save_first = False
        self.phase, self._loop, self._resumed = name, loop, None
        if save_first:
            self.session.save()
        self.stream.load_state(self._places)
        self._remember(loop)

    def _remember(self, loop: TrainingLoop) -> None:
        tensors = loop.state_tensors(parameters=True)
        self._good = (
            self.session.snapshot(),
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()},
            {name: part.tensors() for name, part in self.session.parts.items() if part is not self},
        )

    def _go_back(self, name: str, loop: TrainingLoop) -> None:
        states, tensors, others = copy.deepcopy(self._good[0]), *self._good[1:]
        for part_name, part in self.session.parts.items():
            if part is self or part.state() != states[part_name]:
                part.load_state(states[part_name], others.get(part_name, tensors))
        loop.load_state(self._step, tensors)
        loop.learning_rate /= 2
        self.halved.append(name)

    def _gather(self, place: dict[str, Any] | None) -> None:
        """Shares this process's place in a stream that is read in order; None changes nothing."""
        if place is not None:
            self._places = gather_object([place])
