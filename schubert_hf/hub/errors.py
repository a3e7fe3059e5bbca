"""Errors on the way to the Hub, each as one sentence with the way out."""

from __future__ import annotations

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from ..errors import SchuBertError

# Whatever a request may end in: an answer that is an error, a file that is not there or could not be fetched, and the
# base of the client's transport errors (no route, cut connections, time-outs), whatever HTTP library it uses.
FAILURES = (HfHubHTTPError, EntryNotFoundError, HfHubHTTPError.__mro__[1], ConnectionError)

# Worth another attempt: time-outs, conflicts with another commit, too many requests, server errors.
TRANSIENT = {408, 409, 412, 425, 429, 500, 502, 503, 504}


class RecordError(SchuBertError):
    """A file in a model's folder that cannot be read or contradicts another."""


class PublishError(SchuBertError):
    """A result that was not published; the local one is unchanged."""


class InspectError(SchuBertError):
    """A model that does not exist or is neither a SchuBERT nor a BERT."""


def status_of(error: Exception) -> int | None:
    """The HTTP status behind one of `FAILURES`; None without an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: Exception) -> bool:
    """Whether the request behind one of `FAILURES` may succeed later."""
    return not isinstance(error, OfflineModeIsEnabled) and status_of(error) in {None, *TRANSIENT}


def explain(error: Exception, repo_id: str, *, attempts: int = 1, sends: bool = True) -> str:
    """What happened and what to do, without the client's text, which may repeat what was sent, even a token.

    Args:
        attempts: how many failed.
        sends: whether something was to be uploaded.
    """
    if isinstance(error, HFValidationError):
        return (
            f"`{repo_id}` is no legal name. Give \"name\" or \"organisation/name\": letters, digits, '-', '_' and "
            "'.', at most 96 characters, no '--' or '..', and neither '-' nor '.' at the ends."
        )
    if isinstance(error, OfflineModeIsEnabled) or (isinstance(error, LocalEntryNotFoundError) and is_offline_mode()):
        return f"`{repo_id}`: the Hub client is offline (HF_HUB_OFFLINE is set). Unset it, then try again."
    status, times = status_of(error), f"{attempts} attempt{'s' if attempts > 1 else ''}"
    if status is None:
        return (
            f"`{repo_id}`: no connection to the Hub after {times} ({type(error).__name__}). Check the "
            f"network and HF_ENDPOINT, then try again{': what was uploaded is not sent twice' if sends else ''}."
        )
    reasons = {
        400: "the Hub does not accept the files or the card's metadata. Render the card again with `schubert card`",
        401: "the Hub does not accept the token. Make a new one with write access, then run `hf auth login`",
        403: "this token may not write there. Use one with write access to that user or organisation, or another name",
        404: "there is no such repository, or this token has no access. Check the name and the token's rights",
        409: "the Hub is busy with another change of this repository. Publish again later",
        412: "somebody else keeps changing this repository. Check its history, then publish again",
        413: "the files are too large for the Hub. Save the model in half precision",
        429: "the Hub asks for fewer requests. Publish again later",
    }
    reason = reasons.get(status, "the Hub failed. Publish again later: what was uploaded is not sent twice")
    return f"`{repo_id}`: {reason} (HTTP {status}{f' after {times}' if attempts > 1 else ''})."
