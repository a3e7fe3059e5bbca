"""Processes as strangers have them: a folder and a HF_HOME of their own, nothing of ours on their path.

`OLDEST_PYTHON` names another interpreter, with the oldest transformers that published files promise; CI sets it.
"""

import os
import subprocess
import sys

TOKEN = "hf_secret"
PYTHONS = {"this": sys.executable}
if "OLDEST_PYTHON" in os.environ:
    PYTHONS["oldest"] = os.environ["OLDEST_PYTHON"]


def clean_environment(home, **variables):
    ours = ("PYTHON", "HF_", "TRANSFORMERS_", "PYTEST", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", **variables}


def run_clean(place, *words, python=sys.executable, **variables):
    """What a Python prints, line by line; `place` is made, `variables` are added to the environment."""
    place.mkdir()
    done = subprocess.run(
        [python, *map(str, words)],
        env=clean_environment(place / "home", **variables),
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
