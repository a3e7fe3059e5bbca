import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from standin import Hub
from strangers import TOKEN, clean_environment
from transformers import BertTokenizer

import schubert_hf
from schubert_hf import SchuBertConfig, SchuBertForPreTraining

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def record():
    """A model's facts as JSON: of a real run, short."""
    return json.loads((HERE / "record.json").read_text())


@pytest.fixture(scope="session")
def build(tmp_path_factory, record):
    """Write a tiny model with tokenizer and pruning.json into a folder; another seed gives other weights."""

    def build(folder, seed=0):
        torch.manual_seed(seed)
        config = SchuBertConfig(
            hidden_sizes=[13, 11],
            filter_sizes=[17, 0],
            head_counts=[3, 1],
            key_query_sizes=[5, 7],
            value_sizes=[4, 3],
            vocab_size=99,
            max_position_embeddings=23,
        )
        model = SchuBertForPreTraining(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.eval().save_pretrained(folder)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(94))]
        vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
        vocabulary.write_text("\n".join(words))
        BertTokenizer(vocab=str(vocabulary), model_max_length=23).save_pretrained(folder)
        source = {name: [max(widths) + 2] * 2 for name, widths in config.to_dict().items() if name in _LISTS}
        run = {**record["run"], "source": source}
        (folder / "pruning.json").write_text(json.dumps(run))
        return model

    return build


_LISTS = ("hidden_sizes", "filter_sizes", "head_counts", "key_query_sizes", "value_sizes")


@pytest.fixture
def folder(tmp_path, build):
    folder = tmp_path / "result"
    build(folder)
    return folder


class Worker:
    """Calls functions of worker.py in its process."""

    def __init__(self, hub, home):
        home.mkdir()
        self.log = home / "stderr.txt"
        path = str(Path(schubert_hf.__file__).parent.parent)
        environment = clean_environment(home, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, PYTHONPATH=path)
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                cwd=home,
                text=True,
            )

    def __call__(self, function, *arguments, **kwargs):
        arguments = [str(value) if isinstance(value, Path) else value for value in arguments]
        self.process.stdin.write(json.dumps([function, arguments, kwargs]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        assert TOKEN not in line
        assert TOKEN not in self.log.read_text()
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def session_hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def worker(session_hub, tmp_path_factory):
    worker = Worker(session_hub, tmp_path_factory.mktemp("worker") / "home")
    yield worker
    worker.close()


@pytest.fixture
def hub(session_hub):
    """The Hub of the worker, emptied."""
    for part in (session_hub.repos, session_hub.lfs, session_hub.log, session_hub.faults):
        part.clear()
    return session_hub
