"""Tasks of MTEB (Muennighoff et al. 2022, arXiv 2210.07316), for those who have `mteb` installed and a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.sources import first_line
from .kinds import EncoderError


def evaluate_on_mteb(source: Any, tasks: Sequence[str]) -> dict[str, float]:
    """The main score of each task.

    Args:
        source: a `SentenceTransformer`.
        tasks: names, such as "STSBenchmark".

    Raises:
        EncoderError: `mteb` is not installed, or a task is not known or cannot be loaded.
    """
    try:
        import mteb
    except ImportError as error:
        raise EncoderError("`tasks` are run by mteb, which is not installed. Run `pip install mteb`.") from error
    try:
        results = mteb.evaluate(source, mteb.get_tasks(tasks=list(tasks)))
    except (KeyError, ValueError, OSError) as error:
        raise EncoderError(f"`tasks` {', '.join(tasks)} cannot be run: {first_line(error)}") from error
    return {one.task_name: float(one.get_score()) for one in results.task_results}
