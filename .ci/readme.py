"""Runs every command of README.md, in its order, in the repository's root: what is printed there works, or CI fails.

Blocks marked `bash` run line by line in a shell, blocks marked `python` in a Python of their own.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    if not blocks:
        raise SystemExit("README.md has no commands.")
    for language, text in blocks:
        commands = [text] if language == "python" else [line for line in text.splitlines() if line.strip()]
        for command in commands:
            print(f"\n=== README ({language}): {command}", flush=True)
            began = time.monotonic()
            call = (
                [sys.executable, "-c", command]
                if language == "python"
                else ["bash", "-euo", "pipefail", "-c", command]
            )
            code = subprocess.run(call, cwd=ROOT, check=False).returncode
            print(f"=== {time.monotonic() - began:.0f} s, exit code {code}", flush=True)
            if code:
                raise SystemExit(f"This command of README.md failed: {command}")


main()
