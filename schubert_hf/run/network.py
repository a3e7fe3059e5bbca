"""The Hub where there is no network: asked once, not for half a minute for each file of a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError


@contextlib.contextmanager
def hub_asked_once(*names: Any) -> Iterator[None]:
    """Inside it a Hub that cannot be reached counts as offline, so that its cache is looked into at once.

    Args:
        names: of the models that will be opened; folders and models in memory need no Hub.
    """
    remote = [name for name in names if isinstance(name, str) and not Path(name).exists()]
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(remote and not _reachable(remote[0]))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(name: str) -> bool:
    try:
        HfApi().model_info(name, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return True  # it answered, or was not asked; who opens the model says what is wrong
    except Exception:  # the HTTP library's own errors: which library that is differs between releases
        return False
    return True
