"""Phases of training in a session: each can be stopped at any step, resumes there, and survives a bad step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from ..data.stream import Collator, ExampleStream
from ..run.interrupt import Interrupted
from ..run.session import Part, Session
from .loop import TrainingLoop
from .step import NonFiniteLossError, StepResult

logger = logging.getLogger(__name__)
HALF = 0.5


class Phases(Part):
    """Trains one phase after another on a stream.

    Should a loss or a gradient not be finite, everything goes back to the last good state (the last checkpoint's, or
    the beginning of the phase) and continues at half the learning rate, which holds for all later phases of that name.
    If that does not help, it is an error.

    Args:
        session: of the run; this becomes its part "training".
        stream: of training examples, addressed by number or read in order.
        collator: makes batches of them.
        save_steps: steps of a phase between checkpoints.
        position: of the first example in the stream.
        begin: this process's place in a stream that is read in order; None for one that is addressed by number.

    Attributes:
        position: of the next example in the stream, at the beginning of the current phase.
        steps: of training, in all finished phases.
        phase: the name of the current one; None between two.
        halved: names of phases that run at half the learning rate.
    """

    def __init__(
        self,
        session: Session,
        stream: Any,
        collator: Collator,
        *,
        save_steps: int,
        position: int = 0,
        begin: dict[str, Any] | None = None,
    ) -> None:
        self.session, self.accelerator = session, session.accelerator
        self.stream, self.collator, self.save_steps = stream, collator, save_steps
        self.position, self.steps = position, 0
        self.phase: str | None = None
        self.halved: list[str] = []
        self._step = 0
        self._loop: TrainingLoop | None = None
        self._resumed: dict[str, Tensor] | None = None  # of the phase that a resumed run continues with
        self._good: tuple[dict[str, Any], dict[str, Tensor]] = ({}, {})
        self._data_state = self._everywhere(begin)
        self._rewind()
        session.parts["training"] = self

    @property
    def step(self) -> int:
        """How many steps of the current phase are done."""
        return self._step if self._loop is None else self._loop.step

    def state(self) -> dict[str, Any]:
        if self._loop is not None and self._loop.data_state is not None:
            self._data_state = self._everywhere(self._loop.data_state)
        return {
            "position": self.position,
            "steps": self.steps,
            "phase": self.phase,
            "step": self.step,
            "halved": self.halved,
            "data_state": self._data_state,
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
        self.phase, self._step, self._data_state = state["phase"], state["step"], state["data_state"]
        self._resumed = tensors
        self._rewind()

    def skip(self, examples: int) -> None:
        """Accounts for examples that were read from the stream outside of any phase."""
        self.position += examples
        if not isinstance(self.stream, ExampleStream):
            self._data_state = self._everywhere(self.stream.state())

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
        with self.session.guard.deferred():
            self._begin(name, loop, save_first)

            def after_step(result: StepResult) -> None:
                self._log(name, result, watch)
                due = on_step(result) if on_step is not None else False
                last = loop.step == loop.config.steps
                due |= loop.step % self.save_steps == 0 and not last
                if due:
                    self.session.save()
                if not last:
                    if due:
                        self._remember(loop)
                    self.session.guard.check()

            while True:
                try:
                    loop.run(
                        self.stream,
                        self.collator,
                        offset=self.position,
                        on_step=after_step,
                        description=description,
                    )
                    break
                except Interrupted:
                    self.session.save()
                    raise
                except NonFiniteLossError as error:
                    if name in self.halved:
                        raise NonFiniteLossError(
                            f"{description}: {error} Half the learning rate did not help. The last checkpoint is "
                            f"whole; start again with a lower `{setting}`, or check the data."
                        ) from error
                    self._go_back(name, loop, f"{description}: {error}")
            self._end(loop)

    def _begin(self, name: str, loop: TrainingLoop, save_first: bool) -> None:
        if name in self.halved:
            loop.learning_rate_scale = HALF
        resumed, self._resumed = self._resumed, None
        if resumed is not None and self.phase == name:
            loop.load_state(self._step, resumed)
            save_first = False
        self.phase, self._loop = name, loop
        if save_first:
            self.session.save()
        self._rewind()
        self._remember(loop)

    def _end(self, loop: TrainingLoop) -> None:
        self.state()  # where the stream is now
        self.position += loop.config.steps * loop.config.batch_size
        self.steps += loop.config.steps
        self.phase, self._step, self._loop = None, 0, None

    def _remember(self, loop: TrainingLoop) -> None:
        tensors = loop.state_tensors(parameters=True)
        self._good = (
            self.session.snapshot(),
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()},
        )

    def _go_back(self, name: str, loop: TrainingLoop, what: str) -> None:
        states, tensors = self._good
        for part_name, part in self.session.parts.items():
            state = states[part_name]
            if part is self:
                loop.load_state(state["step"], tensors)
                self._data_state, loop.data_state = state["data_state"], None
            elif part.state() != state:
                part.load_state(copy.deepcopy(state), {})
        self._rewind()
        loop.learning_rate_scale = HALF
        self.halved.append(name)
        if self.accelerator.is_main_process:
            logger.warning("%s Resuming from step %d with half the learning rate.", what, loop.step)

    def _rewind(self) -> None:
        """Lets a stream that is read in order continue from its state; one that is addressed by number needs none."""
        if self._data_state is not None:
            self.stream.load_state(self._data_state)

    def _everywhere(self, state: dict[str, Any] | None) -> list[dict[str, Any]] | None:
        """The place of every process in the stream, by rank; None where it is addressed by number."""
        return None if state is None else gather_object([state])

    def _log(self, name: str, result: StepResult, watch: Callable[[], dict[str, float]] | None) -> None:
        if self.accelerator.trackers:
            values = {**result.to_log(), **(watch() if watch is not None else {})}
            step = self.steps + result.step
            self.accelerator.log({f"{name}/{key}": value for key, value in values.items()}, step=step)
