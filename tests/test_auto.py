import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertTokenizer, pipeline

import schubert_hf
from schubert_hf import SchuBertConfig, SchuBertForMaskedLM, auto_map
from schubert_hf.auto import MODELS, register
from schubert_hf.configuration_schubert import ARCHITECTURES
from schubert_hf.hub.page import OLDEST_TRANSFORMERS
from schubert_hf.shipping import ship

ROOT = Path(schubert_hf.__file__).parent
SHIPPED = ("configuration_schubert.py", "modeling_schubert.py")


def run(code: str, folder: Path, **env: str) -> list[str]:
    """Lines printed by `code` in a fresh process that finds this package, and `folder` as `sys.argv[1]`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT.parent), "HF_MODULES_CACHE": str(folder / "modules"), **env}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def saved(ragged, randomised, tmp_path):
    """A folder with a masked-LM checkpoint, and the model."""
    model = randomised(SchuBertForMaskedLM(ragged(filter_sizes=[41, 0, 53], head_counts=[3, 0, 1])))
    model.save_pretrained(tmp_path)
    return tmp_path, model


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(94))]
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(words))
    return BertTokenizer(vocab=str(vocabulary), model_max_length=23)


@pytest.mark.parametrize(("auto_class", "model_class"), MODELS.items(), ids=lambda c: c.__name__)
def test_auto_classes_build_and_open(ragged, tmp_path, auto_class, model_class):
    config = ragged()
    assert type(auto_class.from_config(config)) is model_class
    model_class(config).save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is model_class
    assert type(AutoConfig.from_pretrained(tmp_path)) is SchuBertConfig
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [model_class.__name__]


def test_registering_again_is_fine(ragged):
    register()
    assert type(AutoModelForMaskedLM.from_config(ragged())) is SchuBertForMaskedLM


def test_tables_name_the_same_classes():
    names = [model.__name__ for model in MODELS.values()]
    assert list(ARCHITECTURES) == names
    assert auto_map() == {
        "AutoConfig": "configuration_schubert.SchuBertConfig",
        **{auto.__name__: f"modeling_schubert.{model.__name__}" for auto, model in MODELS.items()},
    }


def test_tokenizer_comes_with_the_model_type(saved, tokenizer):
    folder, _ = saved
    tokenizer.save_pretrained(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):  # now only the model type can tell
        (folder / name).unlink(missing_ok=True)
    assert isinstance(AutoTokenizer.from_pretrained(folder), BertTokenizer)


def test_fill_mask_pipeline(saved, tokenizer):
    folder, model = saved
    tokenizer.save_pretrained(folder)
    answers = pipeline("fill-mask", model=str(folder), top_k=2, device="cpu")("word3 [MASK] word5")
    with torch.no_grad():
        logits = model(**tokenizer("word3 [MASK] word5", return_tensors="pt")).logits[0, 2]
    assert [answer["token"] for answer in answers] == logits.topk(2).indices.tolist()


@pytest.mark.slow
def test_a_new_process_opens_it_after_an_import_that_is_light(saved):
    """The pruner and what it needs are imported on first use, and sentence-transformers not with commands either."""
    folder, model = saved
    code = """
import sys, torch
from transformers import AutoModelForMaskedLM
import schubert_hf
print([name for name in sys.modules if name.startswith("schubert_hf.pruning")])
print(all(name in dir(schubert_hf) for name in schubert_hf.__all__), hasattr(schubert_hf, "nothing"))
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1])
print(type(model).__name__)
print(model(torch.arange(1, 12)[None]).logits.sum().item())
import schubert_hf.commands.evaluate, schubert_hf.encoders.packages, schubert_hf.front.prune
print("sentence_transformers" in sys.modules)
"""
    *light, name, total, heavy = run(code, folder)
    assert light == ["[]", "True False"]
    assert heavy == "False"
    assert name == "SchuBertForMaskedLM"
    assert float(total) == pytest.approx(model(torch.arange(1, 12)[None]).logits.sum().item(), abs=1e-3)


@pytest.mark.slow
def test_the_shipped_files_need_nothing_of_ours(saved):
    folder, model = saved
    model.config.auto_map = auto_map()
    model.save_pretrained(folder)
    for name in SHIPPED:
        shutil.copy(ROOT / name, folder)
    code = """
import sys, torch
sys.modules["schubert_hf"] = None
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model(torch.arange(1, 12)[None]).logits.sum().item())
head = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True, num_labels=3)
print(head.classifier.out_features, type(head).__module__.startswith("transformers_modules"))
"""
    total, head = run(code, folder)
    assert float(total) == pytest.approx(model(torch.arange(1, 12)[None]).logits.sum().item(), abs=1e-3)
    assert head == "3 True"


@pytest.mark.slow
def test_a_fine_tuned_checkpoint_still_opens_without_this_package(saved, tmp_path):
    folder, _ = saved
    ship(folder)
    tuned = AutoModelForMaskedLM.from_pretrained(folder)
    torch.nn.init.ones_(tuned.cls.predictions.bias)
    tuned.save_pretrained(tmp_path / "tuned")
    code = """
import sys, torch
sys.modules["schubert_hf"] = None
from transformers import AutoModelForMaskedLM
for name, again in (("tuned", "again"), ("again", None)):
    model = AutoModelForMaskedLM.from_pretrained(f"{sys.argv[1]}/{name}", trust_remote_code=True)
    print(model(torch.arange(1, 12)[None]).logits.sum().item())
    if again:
        model.save_pretrained(f"{sys.argv[1]}/{again}")
"""
    expected = tuned(torch.arange(1, 12)[None]).logits.sum().item()
    assert list(map(float, run(code, folder))) == pytest.approx([expected] * 2, abs=1e-3)


def test_files_are_saved_where_the_config_names_them(saved, tmp_path):
    folder, model = saved
    ship(folder)
    tuned = AutoModelForMaskedLM.from_pretrained(folder)
    tuned.save_pretrained(tmp_path / "tuned")
    tuned.save_pretrained(tmp_path / "second", is_main_process=False)
    model.save_pretrained(tmp_path / "plain")
    kept = [{path.name for path in (tmp_path / name).glob("*.py")} for name in ("tuned", "second", "plain")]
    assert kept == [set(SHIPPED), set(), set()]
    for name in SHIPPED:
        assert (tmp_path / "tuned" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_import_only_what_is_everywhere(name):
    text = (ROOT / name).read_text()
    packages = set(re.findall(r"^\s*(?:from|import)\s+([a-z_]+)", text, flags=re.MULTILINE))
    assert packages - sys.stdlib_module_names <= {"torch", "transformers", "huggingface_hub"}
    relative = re.findall(r"^ *(?:from|import) +\..*$", text, flags=re.MULTILINE)
    assert relative == (["from .configuration_schubert import SchuBertConfig"] if "modeling" in name else [])


def test_an_old_transformers_is_named_with_the_way_out(tmp_path, monkeypatch):
    old = tmp_path / "transformers-4.57.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.57.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = rf"transformers>={OLDEST_TRANSFORMERS} is required .* transformers==4.57.1.\n.*pip install --upgrade"
    with pytest.raises(ImportError, match=message):
        runpy.run_path(str(ROOT / "configuration_schubert.py"))


def test_version_of_transformers_is_not_in_the_way():
    assert transformers.AutoConfig.for_model("schubert").hidden_sizes == [768] * 12
