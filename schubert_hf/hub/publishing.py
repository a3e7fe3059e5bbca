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
from .errors import PublishError, RecordError, TransportError, explain, is_transient
from .staging import save_model, stage
from .writing import README, handwritten_page

ATTEMPTS = 5
LONGEST_WAIT = 30.0  # seconds

_FAILURES = (HfHubHTTPError, TransportError, OfflineModeIsEnabled, ConnectionError)
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        repo_id: with the organisation.
        url: of the model's page.
        commit: its hash; `from_pretrained(repo_id, revision=commit)` always loads this state.
        files: that were published.
        kept_readme: whether the repository had a page written by hand, which is kept.
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
    """Publishes a model on the Hub, with its page and the two Python files that load it anywhere.

    The files are checked before anything is sent. Failed requests are repeated, and the whole call may be: what was
    uploaded is not sent twice. The source is only read.

    Args:
        source: a folder, a model, or a result of `SchuBertPruner.prune`.
        repo_id: "organisation/name", or "name" in your own namespace.
        tokenizer: saved with a model in memory.
        private: whether a new repository is private; with True, an existing public one is refused.
        overwrite_readme: replace a page that was written by hand, in the repository or the folder.
        license: the Hub's name for it; by default the base model's, if known.
        latency: measure it for the page, which takes seconds.
        token: by default the one of `hf auth login` or HF_TOKEN.

    Raises:
        PublishError: nothing was published; the message says why and what to do.
    """
    token = check_ready(repo_id, token=token)
    with tempfile.TemporaryDirectory(prefix="schubert_hf-") as scratch:
        folder = _as_folder(source, tokenizer, Path(scratch) / "saved")
        staged = Path(scratch) / "staged"
        staged.mkdir()
        try:
            stage(folder, staged, repo_id, license=license, latency=latency, keep_readme=not overwrite_readme)
        except RecordError as error:
            raise PublishError(str(error)) from error
        return _upload(HfApi(token=token), staged, repo_id, private, overwrite_readme, commit_message)


def check_ready(repo_id: str, *, token: str | None = None) -> str:
    """The token that `publish` would use; worth checking before hours of work. Nothing is sent.

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
    """The folder of a source; a model in memory is saved to `saved`."""
    if isinstance(source, PruningResult) and source.output_dir is not None:
        return source.output_dir
    if not isinstance(source, PruningResult | PreTrainedModel):
        return Path(source)
    save_model(source.model if isinstance(source, PruningResult) else source, tokenizer, saved)
    if isinstance(source, PruningResult):
        write_json(saved / PRUNING_RECORD, source.to_json())
    return saved


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
        paths = (path for path in sorted(staged.rglob("*")) if path.is_file())
        files = {path.relative_to(staged).as_posix(): path for path in paths}
        has_page = any(file.rfilename == README for file in head.siblings or ())
        keep = has_page and not overwrite_readme and _is_handwritten(api, repo_id, head.sha)
        if keep:
            files.pop(README)
        operations = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
        # On top of the state just read. A commit in between, perhaps our own whose answer was lost, gives a 412; the
        # next attempt reads again, and files that are already there are no change.
        info = _create_commit(api, repo_id, operations, message, head.sha)
        return Published(repo_id, f"{api.endpoint}/{repo_id}", info.oid, tuple(files), keep)

    return _retry(commit, repo_id)


def _is_handwritten(api: HfApi, repo_id: str, revision: str | None) -> bool:
    try:
        path = hf_hub_download(repo_id, README, revision=revision, token=api.token, endpoint=api.endpoint)
    except LocalEntryNotFoundError as error:  # the file exists but could not be fetched; the client says no more
        raise ConnectionError(str(error)) from None
    return handwritten_page(Path(path).parent) is not None


def _create_commit(
    api: HfApi, repo_id: str, operations: list[CommitOperationAdd], message: str, head: str | None
) -> Any:
    try:
        return api.create_commit(repo_id, operations, commit_message=message, parent_commit=head)
    except HfHubHTTPError:
        raise
    except ValueError as error:  # the Hub checks the page's metadata first
        text = str(error).replace(str(api.token), "***")
        raise PublishError(f"`{repo_id}`: the Hub does not accept README.md: {text}") from None


def _retry(action: Callable[[], T], repo_id: str) -> T:
    """Runs an action until it succeeds, with growing pauses; only failures that may pass are repeated."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except _FAILURES as error:
            if attempt == ATTEMPTS or not is_transient(error):
                # Not chained: the client's text may repeat what was sent.
                raise PublishError(
                    f"{explain(error, repo_id, attempts=attempt)} Your local result is unchanged."
                ) from None
            wait = min(2.0 ** (attempt - 1), LONGEST_WAIT)
            _log.info(
                "Attempt %d of %d failed (%s); next attempt in %.0f s.", attempt, ATTEMPTS, type(error).__name__, wait
            )
            time.sleep(wait)
    raise AssertionError("unreachable")
