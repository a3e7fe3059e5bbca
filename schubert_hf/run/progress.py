"""Progress bars, on the main process alone and where they are news; and a clock."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import datasets
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers.utils import logging


def show_on_main_process_only(accelerator: Accelerator) -> None:
    """Turns off the progress bars of `datasets` and `transformers` on every process but the main one."""
    if not accelerator.is_main_process:
        datasets.disable_progress_bars()
        logging.disable_progress_bar()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside it `datasets` and `transformers` show no bar and log no more than critical errors."""
    bars, datasets_bars = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    level, datasets_level = logging.get_verbosity(), datasets.logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    datasets.logging.set_verbosity(logging.CRITICAL)
    if bars:
        logging.disable_progress_bar()
    if datasets_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        datasets.logging.set_verbosity(datasets_level)
        if bars:
            logging.enable_progress_bar()
        if datasets_bars:
            datasets.enable_progress_bars()


def progress_bar(accelerator: Accelerator, items: Any, description: str, **options: Any) -> Any:
    """A bar of tqdm on the main process, over items or None; it disappears at the end unless `leave` is given.

    A log file keeps every line that a terminal overwrites, so there it is drawn less often.
    """
    seconds = float(os.environ.get("TQDM_MININTERVAL", 0.2 if sys.stderr.isatty() else 10.0))
    options = {"leave": False, "disable": not accelerator.is_main_process, "mininterval": seconds, **options}
    return tqdm(items, desc=description, **options)


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now
