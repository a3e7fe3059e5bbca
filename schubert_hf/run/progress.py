"""Progress bars on the main process, whole lines instead of them in a log file, and a clock."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import datasets
import huggingface_hub.utils
from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm
from tqdm.std import tqdm as tqdm_std
from transformers.utils import logging

from .provenance import with_code

LINE_SECONDS = 10.0  # between two lines where lines stay


def show_on_main_process_only(accelerator: Accelerator) -> None:
    """Turns off the progress bars of `datasets` and `transformers` on every process but the main one."""
    if not accelerator.is_main_process:
        datasets.disable_progress_bars()
        logging.disable_progress_bar()


@contextlib.contextmanager
def without_loading_bars() -> Iterator[None]:
    """Inside it `transformers` shows no bar over the tensors of a checkpoint; downloads still show theirs."""
    if not logging.is_progress_bar_enabled():
        yield
        return
    downloads = not huggingface_hub.utils.are_progress_bars_disabled()
    logging.disable_progress_bar()  # those of downloads, too
    if downloads:
        huggingface_hub.utils.enable_progress_bars()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if not downloads:
            huggingface_hub.utils.disable_progress_bars()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside it `datasets` and `transformers` show no bar but downloads, and log no more than critical errors."""
    bars = not datasets.are_progress_bars_disabled()
    level, datasets_level = logging.get_verbosity(), datasets.logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    datasets.logging.set_verbosity(logging.CRITICAL)
    if bars:
        datasets.disable_progress_bars()
    try:
        with without_loading_bars():
            yield
    finally:
        logging.set_verbosity(level)
        datasets.logging.set_verbosity(datasets_level)
        if bars:
            datasets.enable_progress_bars()


def lines_stay() -> bool:
    """Whether stderr keeps every line, as a log file does: neither a terminal nor a notebook."""
    notebook = any(kind.__name__ == "tqdm_notebook" for kind in tqdm.__mro__)
    return not notebook and not sys.stderr.isatty()


def progress_bar(accelerator: Accelerator | None, items: Any, description: str, **options: Any) -> Any:
    """A bar of tqdm on the main process, over items or None; it disappears at the end unless `leave` is given.

    Where lines stay, such as in a log file, it is a line every ten seconds, or every TQDM_MININTERVAL.
    """
    if accelerator is not None and not accelerator.is_main_process:
        options["disable"] = True  # else as TQDM_DISABLE says
    kind = _Lines if lines_stay() else tqdm
    seconds = float(os.environ.get("TQDM_MININTERVAL", LINE_SECONDS if kind is _Lines else 0.2))
    return kind(
        items, **{"leave": False, "dynamic_ncols": True, "mininterval": seconds, "desc": description, **options}
    )


class _Lines(tqdm_std):
    """A bar as whole lines: none at the beginning, none twice, and none for what is over sooner."""

    def __init__(self, items: Any, **options: Any) -> None:
        form = "{desc}: {n_fmt}/{total_fmt} ({elapsed}, {remaining} left){postfix}"
        if items is None and options.get("total") is None:
            form = "{desc}: {n_fmt}{unit} ({elapsed}){postfix}"
        # With `miniters` given no thread of tqdm's prints a line again in between.
        seconds = options["mininterval"]
        super().__init__(items, **{**options, "bar_format": form, "delay": seconds, "miniters": 1, "leave": True})

    @staticmethod
    def status_printer(file: Any) -> Any:
        def print_line(text: str) -> None:
            file.write(f"{text}\n")
            file.flush()

        return print_line

    def close(self) -> None:
        self.disable = True  # nothing is printed at the end: what has ended is told by what comes next
        with contextlib.suppress(KeyError):
            self._instances.remove(self)


def map_rows(rows: Dataset, function: Any, description: str, **options: Any) -> Dataset:
    """`Dataset.map` with its bar in a terminal or a notebook, and with one line where lines stay.

    Rows in the cache are used where the same code made them.
    """
    function = with_code(function)
    if datasets.are_progress_bars_disabled() or not lines_stay():
        return rows.map(function, desc=description, **options)
    sys.stderr.write(f"{description}: {len(rows):,} rows\n")
    with quiet():
        return rows.map(function, **options)


def announce(accelerator: Accelerator, text: str) -> None:
    """A line of news on stderr, above any bar, from the main process alone."""
    if accelerator.is_main_process:
        tqdm.write(text, file=sys.stderr)


def format_seconds(seconds: float) -> str:
    """3725 -> "1 h 2 min"; 95 -> "1 min 35 s"; 8.2 -> "8 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now
