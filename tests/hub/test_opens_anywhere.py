"""A published model, opened as a stranger does: a clean process, another folder and HF_HOME, our package out of reach.

`OLDEST_PYTHON` names another interpreter, with the oldest transformers that the two files promise; CI sets it.
"""

import json
from pathlib import Path

import pytest
import torch
from strangers import PYTHONS, TOKEN, run_clean

import schubert_hf
from schubert_hf.auto import auto_map
from schubert_hf.hub.page import OLDEST_TRANSFORMERS

SCRIPT = Path(__file__).with_name("open_anywhere.py")


@pytest.fixture(scope="module")
def published(worker, session_hub, build, tmp_path_factory):
    """Two commits of a model: the first one's hash, and what both give for a sequence."""
    ids, revisions, logits = torch.arange(1, 8)[None], [], []
    for part in (session_hub.repos, session_hub.lfs, session_hub.log, session_hub.faults):
        part.clear()
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("result")
        model = build(folder, seed)
        revisions.append(worker("publish", folder, "org/small")["value"]["commit"])
        with torch.no_grad():
            logits.append(model(ids).prediction_logits.sum().item())
    return revisions[0], logits


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_without_this_package(published, session_hub, tmp_path, python):
    revision, (older, newer) = published
    words, there = (SCRIPT, "org/small", revision), {"HF_ENDPOINT": session_hub.url, "HF_TOKEN": TOKEN}
    found = json.loads(run_clean(tmp_path / "elsewhere", *words, python=PYTHONS[python], **there)[-1])
    expected = {auto: name.partition(".")[2] for auto, name in auto_map().items() if auto != "AutoConfig"}
    assert found["heads"] == expected
    assert found["logits"] == pytest.approx(newer, abs=1e-3)
    assert found["older"] == pytest.approx(older, abs=1e-3)
    assert (found["pipeline"], found["features"]) == (3, 11)
    if python == "oldest":
        assert found["version"].startswith(OLDEST_TRANSFORMERS)
    if found["sentence_transformers"] is None:
        pytest.skip("sentence_transformers is not installed")
    assert found["sentence_transformers"] == [2, 11]


@pytest.mark.slow
def test_with_this_package(published, session_hub, tmp_path):
    code = """
import schubert_hf, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
model = AutoModelForMaskedLM.from_pretrained("org/small")
AutoTokenizer.from_pretrained("org/small")
print(type(model).__module__, model(torch.arange(1, 8)[None]).logits.sum().item())
"""
    ours = str(Path(schubert_hf.__file__).parent.parent)
    there = {"HF_ENDPOINT": session_hub.url, "HF_TOKEN": TOKEN, "PYTHONPATH": ours}
    ((module, total),) = map(str.split, run_clean(tmp_path / "elsewhere", "-c", code, **there))
    assert module == "schubert_hf.modeling_schubert"
    assert float(total) == pytest.approx(published[1][1], abs=1e-3)
