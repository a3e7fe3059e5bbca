"""Where a result comes from: versions, the machine, the base model, the text. No host names, no paths."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError

PACKAGES = ("schubert-hf", "torch", "transformers", "accelerate", "datasets", "tokenizers")
_version = cache(metadata.version)  # parses a file each time, and every checkpoint asks


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What every record says of a run's processes, precision, versions and machine; as JSON."""
    processes = {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
    return {**processes, "versions": versions(), "machine": machine()}


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of packages, by default what a run depends on; what is not installed is absent."""
    installed = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = _version(package)
    return installed


def machine() -> dict[str, Any]:
    """What a time was measured on: processor, cores, threads, memory, accelerators. Nothing that tells whose it is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    description: dict[str, Any] = {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        description["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        description["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return description


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(description: dict[str, Any]) -> str:
    """One line, e.g. "AMD EPYC, 2 cores, 1 thread, 23 GiB of memory, Linux"."""
    parts = [*description.get("accelerators", []), description["processor"]]
    parts += [f"{description[noun]} {noun if description[noun] != 1 else noun[:-1]}" for noun in ("cores", "threads")]
    if "memory_gib" in description:
        parts.append(f"{description['memory_gib']} GiB of memory")
    return ", ".join([*parts, description["system"]])


def base_model(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """`source` of a model, with the licence, language and title that its own card names, where it can be had."""
    card = Path(name) / "README.md"
    try:
        data = ModelCard.load(card if Path(name).exists() else name).data.to_dict()
    except (OSError, ValueError, EntryNotFoundError, yaml.YAMLError):
        data = {}
    known = {field: data[field] for field in ("license", "language") if data.get(field)}
    title = {"name": data["model_name"]} if Path(name).exists() and data.get("model_name") else {}
    return {**source(name, root=root), **title, **known}


def source(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """The name of a model or text: one on the Hub as it is, a file or folder by its last part and its hash.

    Args:
        name: as the user gave it.
        root: files in this folder are named by their path in it, e.g. that of a public repository.

    Returns:
        `name`, `hub` (is it a name on the Hub?), and `sha256` for one file or a folder's weights.
    """
    path = Path(name)
    if not path.exists():
        return {"name": name, "hub": True}
    given, path = path.absolute(), path.resolve()
    if root is not None and path.is_relative_to(root.resolve()):
        called = path.relative_to(root.resolve()).as_posix()
    else:
        called = path.name if ".." in given.parts else given.name  # a link by its own name, as the user knows it
    content = path if path.is_file() else path / "model.safetensors"
    return {"name": called, "hub": False, **({"sha256": sha256(content)} if content.is_file() else {})}


@cache
def code_digest() -> str:
    """A digest of this package's Python files."""
    package = Path(__file__).parents[1]
    digests = [sha256(path) for path in sorted(package.rglob("*.py"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def with_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which the cache of `datasets` then knows by its code.

    It knows a function of a module by its name alone, and would give what another version of this package made.
    """
    return partial(_call, function, code_digest())


def _call(function: Callable[..., Any], _code: str, *args: Any, **options: Any) -> Any:
    return function(*args, **options)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
