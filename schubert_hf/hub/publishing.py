"""From a folder to a repository on the Hub, in one commit."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..pruning.result import PruningResult
from ..run.checkpoint import write_json
from ..run.output import PRUNING_RECORD
from .errors import PublishError, TransportError, explain, is_transient
from .staging import check_staged, save_model, stage, staged_files
from .writing import README, handwritten_page

ATTEMPTS = 5
LONGEST_WAIT = 30.0  # seconds

_FAILURES = (HfHubHTTPError, TransportError, OfflineModeIsEnabled, ConnectionError)
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """What stands on the Hub now.

    Attributes:
        repo_id: with the organisation.
        url: of the model's page.
        commit: its hash; `from_pretrained(repo_id, revision=commit)` opens this state for good.
        files: what it holds of ours.
        kept_readme: the repository had a page written by hand, which stays.
    """

    repo_id: str
    url: str
    commit: str
    files: tuple[str, ...]
    kept_readme: bool


def publish(
    source: str | Path | PreTrainedModel | PruningResult,
    repo_id: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    private: bool | None = None,
    overwrite_readme: bool = False,
    license: str | None = None,
    latency: bool = True,
    commit_message: str = "Publish with schubert_hf",
    token: str | None = None,
) -> Published:
    """Puts a model on the Hub, with its page and with the two Python files that open it anywhere.

    The files are checked before anything is sent. A broken connection is tried again; so may the whole call be, since
    what was uploaded is not sent twice. The source is only read.

    Args:
        source: a folder, a model, or what `SchuBertPruner.prune` gave.
        repo_id: "organisation/name", or "name" for one of your own.
        tokenizer: saved with a model in memory.
        private: for a repository that is new; True also makes sure that an existing one is not public.
        overwrite_readme: replace a page that was written by hand, in the repository or the folder; else it stays.
        license: the Hub's name for it; by default the base model's, where it is known.
        latency: measure it for the page, which takes seconds.
        token: by default that of `hf auth login` or HF_TOKEN.

    Raises:
        PublishError: nothing was published; the message says why and what to do.
        RecordError: what the folder says about itself cannot be read.
    """
    token = check_ready(repo_id, token=token)
    with tempfile.TemporaryDirectory(prefix="schubert_hf-") as scratch:
        folder = _as_folder(source, tokenizer, Path(scratch) / "saved")
        staged = Path(scratch) / "staged"
        staged.mkdir()
        stage(folder, staged, repo_id, license=license, latency=latency, keep_readme=not overwrite_readme)
        check_staged(staged)
        return _upload(HfApi(token=token), staged, repo_id, private, overwrite_readme, commit_message)


def check_ready(repo_id: str, *, token: str | None = None) -> str:
    """The token that publishing would use; worth asking before hours of work. Nothing is sent.

    Raises:
        PublishError: the name is not legal, or there is no token.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(explain(error, repo_id)) from None
    token = token or get_token()
    if token is None:
        raise PublishError("There is no token for the Hub. Run `hf auth login`, or set HF_TOKEN, then publish again.")
    return token


def _as_folder(source: Any, tokenizer: PreTrainedTokenizerBase | None, saved: Path) -> Path:
    """The folder where a source lies; what is only in memory is saved to `saved`."""
    if isinstance(source, PruningResult):
        if source.output_dir is not None:
            return source.output_dir
        save_model(source.model, tokenizer, saved)
        write_json(saved / PRUNING_RECORD, source.to_json())
        return saved
    if isinstance(source, PreTrainedModel):
        save_model(source, tokenizer, saved)
        return saved
    return Path(source)


def _upload(
    api: HfApi, staged: Path, repo_id: str, private: bool | None, overwrite_readme: bool, message: str
) -> Published:
    repo_id = _retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True).repo_id, repo_id)

    def commit() -> Published:
        head = api.model_info(repo_id)
        if private and not head.private:
            raise PublishError(
                f"`{repo_id}` exists and is public. Make it private in its settings on the Hub, or take another name."
            )
        files = staged_files(staged)
        has_page = any(file.rfilename == README for file in head.siblings or ())
        keep = has_page and not overwrite_readme and _is_handwritten(api, repo_id, head.sha)
        if keep:
            files.pop(README)
        operations = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
        # On top of what was just read: a commit that came between, be it our own whose answer was lost, is a 412. Then
        # the next attempt looks again, and files that are there already are no change.
        info = _create_commit(api, repo_id, operations, message, head.sha)
        return Published(repo_id, f"{api.endpoint}/{repo_id}", info.oid, tuple(files), keep)

    return _retry(commit, repo_id)


def _is_handwritten(api: HfApi, repo_id: str, revision: str | None) -> bool:
    try:
        path = hf_hub_download(repo_id, README, revision=revision, token=api.token, endpoint=api.endpoint)
    except LocalEntryNotFoundError as error:  # it is there, and did not come: the client says no more
        raise ConnectionError(str(error)) from None
    return handwritten_page(Path(path).parent) is not None


def _create_commit(
    api: HfApi, repo_id: str, operations: list[CommitOperationAdd], message: str, head: str | None
) -> Any:
    try:
        return api.create_commit(repo_id, operations, commit_message=message, parent_commit=head)
    except HfHubHTTPError:
        raise
    except ValueError as error:  # the Hub has looked at the page's metadata first
        text = str(error).replace(str(api.token), "***")
        raise PublishError(f"`{repo_id}`: the Hub does not accept README.md: {text}") from None


def _retry(action: Callable[[], T], repo_id: str) -> T:
    """Runs an action until it succeeds; with growing pauses, and only after failures that may pass."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except _FAILURES as error:
            if attempt == ATTEMPTS or not is_transient(error):
                # Not chained: the client's text may repeat what was sent.
                raise PublishError(
                    f"{explain(error, repo_id, attempts=attempt)} Your local result is as it was."
                ) from None
            wait = min(2.0 ** (attempt - 1), LONGEST_WAIT)
            _log.info(
                "Attempt %d of %d failed (%s); the next in %.0f s.", attempt, ATTEMPTS, type(error).__name__, wait
            )
            time.sleep(wait)
    raise AssertionError("unreachable")
