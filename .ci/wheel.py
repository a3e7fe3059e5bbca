"""What `pip install schubert-hf` gives, without the clone: a wheel made from the sdist prunes a BERT elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICK = "--recovery-steps 2 --calibration-examples 16 --batch-size 8 --eval-examples 16 --max-length 64"


def main() -> None:
    began = time.monotonic()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pip = [sys.executable, "-m", "pip"]
        run(*pip, "install", "-q", "hatchling", cwd=folder)
        run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder / "sdist", cwd=ROOT)
        (sdist,) = (folder / "sdist").iterdir()
        run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder / "wheel", sdist, cwd=folder)
        (wheel,) = (folder / "wheel").iterdir()
        check_content(wheel)
        run(*pip, "install", "-q", "--no-deps", "--force-reinstall", wheel, cwd=folder)
        shutil.copytree(ROOT / "examples" / "default" / "model", folder / "model")
        shutil.copy(ROOT / "examples" / "default" / "text" / "valid.txt", folder)
        find = 'from importlib.util import find_spec; print(find_spec("schubert_hf").origin)'
        found = subprocess.run([sys.executable, "-c", find], cwd=folder, capture_output=True, text=True, check=True)
        if Path(found.stdout).is_relative_to(ROOT):
            raise SystemExit(f"The clone is still what is installed: {found.stdout}")
        command = Path(sys.executable).with_name("schubert")
        given = f"prune model --text valid.txt --target 80% --output-dir small --report-to none {QUICK}"
        run(command, *given.split(), cwd=folder)
        record = json.loads((folder / "small" / "pruning.json").read_text(encoding="utf-8"))
        if record["size"] > 0.8 * record["source_size"] or not (folder / "small" / "README.md").exists():
            raise SystemExit("The wheel wrote no model of the size that was asked for, or no page of it.")
    print(f"=== The wheel prunes without the clone: {time.monotonic() - began:.0f} s", flush=True)


def check_content(wheel: Path) -> None:
    """The package alone: neither examples with their model and text, nor tests."""
    foreign = {
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if not name.startswith("schubert_hf/") and ".dist-info/" not in name
    }
    if foreign:
        raise SystemExit(f"{wheel.name} holds what is no part of the package: {', '.join(sorted(foreign))}")


def run(*words: object, cwd: Path) -> None:
    command = [str(word) for word in words]
    if subprocess.run(command, cwd=cwd, check=False).returncode:
        raise SystemExit(f"This failed: {' '.join(command)}")


main()
