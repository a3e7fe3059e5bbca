"""Ctrl-C and SIGTERM, handled between two steps: the step under way is finished, and all processes stop together.

Where there are no steps, and nothing that would have to be finished, they can be taken at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop; `exit_code` is what shells expect of a program that ended on it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class InterruptGuard:
    """Within `with InterruptGuard(accelerator) as guard`, a signal only leaves a note; `guard.check()` raises.

    Launchers send a signal twice, to the group and to each process, so repeated ones change nothing.

    Args:
        accelerator: of the run; every process must call `check` after every step.
        at_once: raise there and then, except in `deferred` blocks.
    """

    def __init__(self, accelerator: Accelerator, *, at_once: bool = False) -> None:
        self.accelerator = accelerator
        self.received = 0
        self._at_once = at_once
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptGuard:
        # Python takes signals in its main thread only; elsewhere (a notebook's worker) they keep their meaning.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Interrupted` on every process once any of them has received a signal."""
        received = self.received
        if self.accelerator.num_processes > 1:
            note = torch.tensor([received], device=self.accelerator.device)
            received = int(self.accelerator.gather(note).max())
        if received:
            raise Interrupted(received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal waits for `check`, or for the end of the block."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before
        if self._at_once and self.received:
            raise Interrupted(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.received = not self.received, self.received or number
        if self._at_once and first:
            raise Interrupted(self.received)
