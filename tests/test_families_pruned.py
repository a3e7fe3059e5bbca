"""`schubert prune` and `schubert inspect` on a tiny checkpoint of every class; opened where this package is not."""

import json

import pytest
import torch
from forks import run as start
from relatives import CONFIGS, NAMES, QUICK, build, tokenizer_of
from strangers import PYTHONS, run_clean
from transformers import AutoTokenizer

import schubert_hf
from schubert_hf.commands import main
from schubert_hf.hub.staging import save_model, stage
from schubert_hf.shape import Shape

FLAGS = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]

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


@pytest.fixture
def run(capsys, _no_pictures):
    """What a command prints."""

    def run(*words):
        main([str(word) for word in words])
        return capsys.readouterr().out

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [*NAMES, ("electra", "ElectraForPreTraining")])
def test_the_commands_prune_and_inspect_every_class(family, name, checkpoint, text_file, tmp_path, run):
    folder, model = checkpoint(family, name)
    small, ours = tmp_path / "small", schubert_hf.convert_bert(model)
    run("prune", folder, "--text", text_file, "--target", "50%", "--output-dir", small, *FLAGS)
    result = schubert_hf.prune(folder, "50%", text=text_file, **QUICK)
    assert result.kept <= 0.5
    reopened = schubert_hf.load(small)
    assert type(reopened) is type(result.model)
    got, want = reopened.state_dict(), result.model.state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], want[key].cpu()) for key in want)
    for place, inside in ((folder, ours), (small, result.model)):
        found = json.loads(run("inspect", place, "--json"))
        assert (found["family"], found["architecture"]) == (family, type(ours).__name__)
        shape = Shape.of(inside.config)
        sizes = {} if shape.embedding_size is None else {"embedding_size": shape.embedding_size}
        assert found["shape"] == {**shape.lists(), **sizes}
        assert found["parameters"]["total"] == inside.num_parameters()
        assert f"{type(ours).__name__} of the family {family}" in " ".join(run("inspect", place).split())


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(checkpoint, text_file, tmp_path, run):
    folder, _ = checkpoint("xlm-roberta", "XLMRobertaForSequenceClassification")
    words = ["prune", folder, "--text", text_file, "--target", "60%", "--output-dir", "small", *FLAGS]
    done = start("-m", "schubert_hf", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Saved in small, with a page of its own (README.md)." in done.stdout
    found = json.loads(run("inspect", tmp_path / "small", "--json"))
    assert found["family"] == "xlm-roberta"
    assert found["removed"]["parameters"] >= 0.4


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
    for name, python in PYTHONS.items():
        lines = run_clean(tmp_path / name, "-c", OPEN, json.dumps(asked), python=python, HF_HUB_OFFLINE="1")
        for got, want in zip(json.loads(lines[-1]), expected, strict=True):
            assert got[:2] == want[:2]
            assert got[2] == pytest.approx(want[2], abs=1e-3)
