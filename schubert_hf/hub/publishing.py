"""From a folder to a repository on the Hub, in one commit."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..export.errors import ExportError
from ..pruning.result import PruningResult
from ..run.checkpoint import write_json
from ..run.output import PRUNING_RECORD
from .errors import FAILURES, PublishError, RecordError, explain, is_transient
from .page import opener
from .staging import save_model, stage
from .writing import README, handwritten_page

ATTEMPTS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A published model: `from_pretrained(repo_id, revision=commit)` always loads this state."""

    repo_id: str  # with the organisation
    url: str  # of the model's page
    commit: str
    files: tuple[str, ...]
    kept_readme: bool  # whether the repository had a page written by hand, which is kept
    opener: str  # the class that opens it with its head


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
            record = stage(folder, staged, repo_id, license=license, latency=latency, keep_readme=not overwrite_readme)
        except (RecordError, ExportError) as error:
            raise PublishError(str(error)) from error
        api = HfApi(token=token)
        how = opener(record)
        return _retry(lambda: _upload(api, staged, repo_id, how, private, overwrite_readme, commit_message), repo_id)


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
    if isinstance(source, PreTrainedModel):
        save_model(source, tokenizer, saved)
    elif not isinstance(source, PruningResult):
        return Path(source)
    elif source.output_dir is not None:
        return source.output_dir
    else:
        if source.package is not None:
            source.package.save(saved)
        else:
            save_model(source.model, tokenizer, saved)
        write_json(saved / PRUNING_RECORD, source.to_json())
    return saved


def _upload(
    api: HfApi, staged: Path, repo_id: str, how: str, private: bool | None, overwrite_readme: bool, message: str
) -> Published:
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    head = api.model_info(repo_id)
    if private and not head.private:
        raise PublishError(
            f"`{repo_id}` exists and is public. Make it private in its settings on the Hub, or take another name."
        )
    paths = (path for path in sorted(staged.rglob("*")) if path.is_file())
    files = {path.relative_to(staged).as_posix(): path for path in paths}
    keep = False
    if not overwrite_readme and any(file.rfilename == README for file in head.siblings or ()):
        page = hf_hub_download(repo_id, README, revision=head.sha, token=api.token, endpoint=api.endpoint)
        keep = handwritten_page(Path(page).parent) is not None
    if keep:
        files.pop(README)
    operations = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
    try:
        # On top of the state just read. A commit in between, perhaps our own whose answer was lost, gives a 412; the
        # next attempt reads again, and files that are already there are no change.
        info = api.create_commit(repo_id, operations, commit_message=message, parent_commit=head.sha)
    except HfHubHTTPError:
        raise
    except ValueError as error:  # the Hub checks the page's metadata first
        text = str(error).replace(str(api.token), "***")
        raise PublishError(f"`{repo_id}`: the Hub does not accept README.md: {text}") from None
    return Published(repo_id, f"{api.endpoint}/{repo_id}", info.oid, tuple(files), keep, how)


def _retry(action: Callable[[], Published], repo_id: str) -> Published:
    """Runs an action until it succeeds, with growing pauses; only failures that may pass are repeated.

    The client itself repeats only some of its requests: not those that create a repository, read it or commit.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except FAILURES as error:
            if attempt == ATTEMPTS or not is_transient(error):
                reason = explain(error, repo_id, attempts=attempt)
                # Not chained: the client's text may repeat what was sent.
                raise PublishError(f"{reason} Your local result is unchanged.") from None
            name, wait = type(error).__name__, 2.0 ** (attempt - 1)
            _log.info("Attempt %d of %d failed (%s); next attempt in %.0f s.", attempt, ATTEMPTS, name, wait)
            time.sleep(wait)
