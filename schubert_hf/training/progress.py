"""Progress bars and log lines of the libraries below us: on the main process alone, and only where they are news."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import datasets
from accelerate import Accelerator
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


def seconds_between_updates() -> float:
    """How often a bar is drawn: a terminal overwrites it, a log file keeps every line."""
    return float(os.environ.get("TQDM_MININTERVAL", 0.2 if sys.stderr.isatty() else 10.0))
