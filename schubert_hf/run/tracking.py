"""Trackers of a run, by name: TensorBoard and whatever else Accelerate knows and is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import ProjectConfiguration

from ..errors import SchuBertError

LOGS = "logs"


class TrackerError(SchuBertError):
    """A tracker that is not known or not installed."""


def tracker_options(names: str, output: Path) -> dict[str, Any]:
    """Options of an `Accelerator` for trackers ("tensorboard,wandb"; "none" for none) that write below `output`.

    Raises:
        TrackerError: one of them is not known to Accelerate, or not installed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    known, installed = list(LOGGER_TYPE_TO_CLASS), [str(name) for name in get_available_trackers()]
    for name in wanted:
        if name not in known:
            raise TrackerError(f"`report_to` names {name!r}; allowed are none, {', '.join(known)}.")
        if name not in installed:
            raise TrackerError(f"`report_to` names {name!r}, which is not installed. Run `pip install {name}`.")
    folders = ProjectConfiguration(project_dir=str(output), logging_dir=str(output / LOGS))
    # None, since Accelerate takes an empty list for trackers that are not installed.
    return {"log_with": wanted or None, "project_config": folders}


def begin_tracking(accelerator: Accelerator, project: str, settings: Mapping[str, Any]) -> None:
    """Opens the trackers of `tracker_options`; settings that are no numbers or truth values are logged as text."""
    if accelerator.log_with:
        plain = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()
        }
        accelerator.init_trackers(project, config=plain)
