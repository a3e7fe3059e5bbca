"""`schubert_hf.prune` and `schubert inspect` on a tiny checkpoint of every class; opened where this package is not."""

import json
import os
import subprocess
import sys

import pytest
import torch
from relatives import CONFIGS, NAMES, QUICK, build, inputs, tokenizer_of
from transformers import AutoTokenizer

import schubert_hf
from schubert_hf.hub.inspection import inspect
from schubert_hf.hub.staging import save_model, stage

SETTINGS = {**QUICK, "objective": "outputs", "max_length": 20}
SHIPPED = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


@pytest.fixture(scope="module")
def checkpoint(corpus, tmp_path_factory):
    """Save a tiny checkpoint with its tokenizer; the folder and the model."""
    tokenizers = {family: tokenizer_of(family, corpus) for family in CONFIGS}

    def save(family, name):
        folder = tmp_path_factory.mktemp(name)
        model = build(family, name, vocab_size=max(99, len(tokenizers[family])))
        model.save_pretrained(folder)
        tokenizers[family].save_pretrained(folder)
        return folder, model

    return save


PUBLISHED = [
    (family, next(name for kind, name in NAMES if kind == family and name.endswith(ending)))
    for family, ending in zip(CONFIGS, SHIPPED, strict=True)
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [known for known in NAMES if known not in PUBLISHED])
def test_every_class_is_pruned_to_half_and_opens_again(family, name, checkpoint, corpus, tmp_path):
    folder, model = checkpoint(family, name)
    result = schubert_hf.prune(str(folder), "50%", text=corpus[:30], **SETTINGS)
    assert result.kept <= 0.5
    ours = schubert_hf.convert_bert(model)
    result.model.save_pretrained(tmp_path)
    before, found = inspect(folder), inspect(tmp_path)
    assert before.config.family == found.config.family == family
    assert type(result.model).__name__ == before.architecture == found.architecture == type(ours).__name__
    assert found.parameters.total == result.model.num_parameters() <= 0.5 * ours.num_parameters()
    assert before.parameters.total == ours.num_parameters()
    reopened = schubert_hf.load(tmp_path).eval()
    given = inputs(model)
    with torch.no_grad():
        ours, again = result.model.cpu().eval()(**given), reopened(**given)
    assert ours.keys() == again.keys()
    for key in ours:
        torch.testing.assert_close(again[key], ours[key], atol=1e-6, rtol=0)


OPEN = """
import json, sys
sys.modules["schubert_hf"] = None
import torch, transformers
found = []
for folder, head in json.loads(sys.argv[1]):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = getattr(transformers, f"AutoModel{head}").from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        output = model(**tokenizer("The cat sees", "a dog", return_tensors="pt"))[0]
    found.append([type(tokenizer).__name__, model.config.family, output.double().sum().item()])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_published_folders_open_without_this_package(checkpoint, corpus, tmp_path):
    """With the family's own tokenizer, and a page that names both."""
    asked, expected = [], []
    for (family, name), ending in zip(PUBLISHED, SHIPPED, strict=True):
        folder, _ = checkpoint(family, name)
        result = schubert_hf.prune(str(folder), "50%", text=corpus[:30], **SETTINGS)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        save_model(result.model, tokenizer, folder / "small")
        published = tmp_path / family
        published.mkdir()
        stage(folder / "small", published, f"org/{family}", license="mit", latency=False)
        page = (published / "README.md").read_text()
        assert f"Family of the base: `{family}`. Licence: mit. Tokenizer: `{type(tokenizer).__name__}`." in page

        assert result.kept <= 0.5

        given = tokenizer("The cat sees", "a dog", return_tensors="pt")
        small = result.model.cpu().eval()
        with torch.no_grad():
            expected.append([type(tokenizer).__name__, family, small(**given)[0].double().sum().item()])
        asked.append([str(published), ending.removeprefix("Model")])
    for python in filter(None, (sys.executable, os.environ.get("OLDEST_PYTHON"))):  # see tests/hub/test_opens_anywhere
        done = subprocess.run(
            [python, "-c", OPEN, json.dumps(asked)],
            env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for got, want in zip(json.loads(done.stdout.splitlines()[-1]), expected, strict=True):
            assert got[:2] == want[:2]
            assert got[2] == pytest.approx(want[2], abs=1e-3)
