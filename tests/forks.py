"""Real processes that start at once: each is a fork of one that has imported what they need.

Importing PyTorch and transformers takes most of a short process's time. Nothing else is shared: a fork has an
environment, a working folder, standard streams and a process number of its own, and dies of its own signals. What a
process imports, or does first, is tested with `subprocess`; so are launchers.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

FORKS = multiprocessing.get_context("forkserver")
NEEDED = ("accelerate", "sentence_transformers", "schubert_hf.front.prune", "schubert_hf.evaluation.runs")
FORKS.set_forkserver_preload([*NEEDED])


class Ended(NamedTuple):
    """How a run ended: its exit code, negative for a signal, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Fork:
    """What `python WORDS` would start, on one process or on several that find each other as torchrun's do.

    Args:
        words: a script, or `-m` and a module, or `-c` and code; and its arguments.
        environment: beside that of the tests. What libraries read as they are imported is already read.
    """

    def __init__(
        self,
        *words: object,
        processes: int = 1,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.files = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        common = {**os.environ, **(environment or {})}
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        given = [str(word) for word in words]
        self.processes = []
        for rank in range(processes):
            own = common if processes == 1 else {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.processes.append(FORKS.Process(target=_become, args=(given, self.files, str(cwd or Path.cwd()), own)))
            self.processes[-1].start()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else next(filter(None, codes), 0)

    def send_signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    def end(self, timeout: float = 250) -> Ended:
        """Waits; where one of several processes fails, the others are ended."""
        running, until = {process.sentinel: process for process in self.processes}, time.monotonic() + timeout
        while running:
            ready = wait(list(running), until - time.monotonic())
            failed = not ready
            for sentinel in ready:
                process = running.pop(sentinel)
                process.join()
                failed = failed or process.exitcode != 0
            for process in running.values() if failed else ():
                process.kill()
        out, errors = (path.read_text() if path.exists() else "" for path in self.files)
        self._folder.cleanup()
        code = self.poll()
        assert code is not None
        return Ended(code, out, errors)


def run(*words: object, **options: Any) -> Ended:
    """See `Fork`; to the end."""
    return Fork(*words, **options).end()


def _become(words: list[str], files: list[Path], cwd: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    gc.freeze()  # what was imported: to walk through it takes a second at each collection
    what, *rest = words
    if what == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif what == "-m":
        sys.argv = [rest[0], *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(what).resolve().parent))
        runpy.run_path(what, run_name="__main__")
