"""Nothing here depends on how long anything takes: the clock is a fake, or figures are checked by their structure."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers

from schubert_hf import SchuBertModel
from schubert_hf.bench.backends import BACKENDS, Backend, Opened
from schubert_hf.bench.checkpoint import Checkpoint, labels
from schubert_hf.bench.comparing import compare
from schubert_hf.bench.errors import BenchError
from schubert_hf.bench.memory import measure_here, peak_memory
from schubert_hf.bench.qualities import read_qualities
from schubert_hf.commands import main
from schubert_hf.latency.timing import Workload, take_turns
from schubert_hf.report import print_comparison

SMALL = {"seq_lens": [7], "rounds": 1, "memory": False}


class FakeClock:
    """A clock that only what is timed moves."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def fake(monkeypatch, clock):
    """A backend that takes as many milliseconds as the batch has tokens, twice that for the pruned model."""

    def open_fake(checkpoint, path, workload):
        slower = 2 if checkpoint.config.model_type == "schubert" else 1

        def run(inputs):
            clock.seconds += slower * inputs["input_ids"].numel() / 1000

        return Opened(run, 1234 * slower)

    monkeypatch.setitem(BACKENDS, "fake", Backend(open_fake, "torch"))


def test_passes_take_turns_and_the_first_of_a_turn_does_not_count(clock):
    order = []

    def compute(name, seconds):
        order.append(name)
        clock.seconds += seconds[order.count(name) % 3]  # the first of three passes: index 1

    def passing(name, *seconds):
        return lambda: compute(name, seconds)

    times = take_turns([passing("a", 0.003, 9, 0.002), passing("b", 0.005, 9, 0.004)], rounds=4, clock=clock)
    assert times == [pytest.approx([2, 3] * 4), pytest.approx([4, 5] * 4)]
    turns = [order[place : place + 3] for place in range(0, len(order), 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    assert all({turns[n][0], turns[n + 1][0]} == {"a", "b"} for n in range(0, len(turns), 2))


@pytest.mark.usefixtures("fake")
def test_figures_by_workload_model_and_backend(dense, pruned, clock, capsys):
    arguments = {"batch_sizes": [1, 3], "seq_lens": [7, 11], "rounds": 2, "memory": False}
    comparison = compare([dense, pruned], backends=["fake"], clock=clock, **arguments)
    assert comparison.workloads == [(1, 7), (1, 11), (3, 7), (3, 11)]
    for size, length in comparison.workloads:
        one, two = comparison.of((size, length))
        assert (one.model, two.model, one.backend) == ("dense", "pruned", "fake")
        assert one.milliseconds == pytest.approx([size * length] * 3)
        assert two.median == pytest.approx(2 * one.median)
        assert (one.weights, two.weights, one.runs, one.peak) == (1234, 2468, 4, None)
    shown = json.loads(json.dumps(comparison.to_json()))
    assert len(shown["measurements"]) == 8
    assert shown["machine"].keys() == {"processor", "cores", "threads", "system", "memory_gib"}
    print_comparison(comparison)
    table = capsys.readouterr().out.partition("Batch of 1, 11 tokens each")[2]
    assert all(figure in table for figure in ("11.00", "22.00", "2.00"))


def test_pytorch_runs_the_class_that_was_saved_on_every_token(dense, pruned):
    seen = {}

    def watch(module, _, output):
        assert not module.training
        seen[type(module).__name__] = output

    with torch.nn.modules.module.register_module_forward_hook(watch):
        comparison = compare([dense, pruned], batch_sizes=[2], **SMALL)
    models = ("BertForMaskedLM", "SchuBertForMaskedLM")
    assert [tuple(seen[name].logits.shape) for name in models] == [(2, 7, 99)] * 2
    assert [one.backend for one in comparison.measurements] == ["torch", "torch"]
    model = transformers.BertForMaskedLM.from_pretrained(dense)
    buffers = sum(x.nbytes for x in model.buffers())
    assert comparison.measurements[0].weights == 4 * model.num_parameters() + buffers
    assert all(0 < one.milliseconds[0] <= one.median <= one.milliseconds[2] for one in comparison.measurements)
    half = compare([pruned], dtype=torch.bfloat16, **SMALL)
    assert half.measurements[0].weights < 0.6 * comparison.measurements[1].weights


def test_a_sentence_encoder_is_its_transformer(tmp_path, ragged):
    folder = tmp_path / "encoder"
    SchuBertModel(ragged()).save_pretrained(folder / "0_Transformer")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer", "type": "x"}]))
    assert compare([str(folder)], **SMALL).measurements[0].model == "encoder"


def test_positions_of_a_relative(tmp_path, bert_config):
    fields = {**bert_config().to_dict(), "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 20}
    folder = tmp_path / "roberta"
    transformers.RobertaModel(transformers.RobertaConfig(**fields)).save_pretrained(folder)
    assert Checkpoint.find(str(folder)).positions == 18
    compare([str(folder)], **{**SMALL, "seq_lens": [18]})
    with pytest.raises(BenchError, match=r"`seq_len` is 19.*has 18 positions"):
        compare([str(folder)], **{**SMALL, "seq_lens": [19]})


def test_no_path_is_shown_and_no_two_names_are_alike(dense, tmp_path):
    (tmp_path / "other" / "dense").mkdir(parents=True)
    other = str(tmp_path / "other" / "dense")
    assert labels([dense, other, "org/dense", dense]) == ["dense (1)", "dense (2)", "org/dense", "dense (3)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "nothing to time"),
        ({"models": ["nowhere"]}, r"`nowhere` cannot be opened.*Give a folder"),
        ({"models": ["a//b"]}, r"`a//b` cannot be opened"),
        ({"backends": ["tensorrt"]}, r"`backends` has 'tensorrt'. Allowed are torch, compiled, onnx"),
        ({"backends": ["absent"]}, "needs the package no_such_package. Install it"),
        ({"backends": ["torch", "exported"]}, r"None of the models has a file for `exported`.*schubert export"),
        ({"backends": ["exported"], "device": "meta"}, "`exported` runs on the CPU, not on `meta`"),
        ({"batch_sizes": [0]}, "`batch_size` is 0"),
        ({"rounds": 0}, "`rounds` is 0; allowed is a whole number of at least 1"),
        ({"seq_lens": [24]}, r"`seq_len` is 24, but `.*dense` has 23 positions"),
    ],
)
def test_errors_before_anything_is_timed(dense, monkeypatch, arguments, message):
    monkeypatch.setitem(BACKENDS, "absent", Backend(BACKENDS["torch"].open, "no_such_package"))
    monkeypatch.setitem(BACKENDS, "exported", Backend(BACKENDS["torch"].open, "torch", "model.none"))
    given = {**SMALL, "models": [dense], **arguments}
    with pytest.raises(ValueError, match=message):
        compare(given.pop("models"), clock=lambda: pytest.fail("it was timed"), **given)


def test_what_a_backend_refuses_is_one_sentence(dense, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no such operator\nat line 7")

    monkeypatch.setitem(BACKENDS, "strict", Backend(refuse, "torch"))
    with pytest.raises(BenchError, match=r"^`dense` does not run on strict: no such operator Leave `strict` out"):
        compare([dense], backends=["strict"], **SMALL)


def test_weights_that_are_missing_are_named(dense, tmp_path):
    (tmp_path / "dense" / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"cannot be loaded.*Only safetensors"):
        compare([dense], **SMALL)


def record(folder, **content):
    (folder / "pruning.json").write_text(json.dumps(content))


def test_qualities_of_pruned_and_dense(dense, pruned, tmp_path):
    assert read_qualities([dense, pruned]) is None
    rounds = [{"before": {"loss": 2.5, "mlm": 2.5}, "after_recovery": {"loss": 2.75, "mlm": 2.75}}]
    record(tmp_path / "pruned", rounds=rounds, provenance={"base_model": {"name": "dense", "hub": False}})
    quality = read_qualities([dense, pruned])
    assert (quality.name, quality.values) == ("held-out loss (nats)", {"pruned": 2.75, "dense": 2.5})
    record(tmp_path / "pruned", rounds=rounds, encoder={"cosine": 0.875, "kind": "SentenceTransformer"})
    quality = read_qualities([pruned])
    assert (quality.name, quality.values) == ("mean cosine to the dense embedding", {"pruned": 0.875})


def test_another_dense_model_gets_no_quality(dense, pruned, tmp_path):
    rounds = [{"before": {"loss": 2.5, "mlm": 2.5}, "after_recovery": {"loss": 2.75, "mlm": 2.75}}]
    base = {"name": "dense", "hub": False, "sha256": "0" * 64}
    record(tmp_path / "pruned", rounds=rounds, provenance={"base_model": base})
    assert read_qualities([dense, pruned]).values == {"pruned": 2.75}


@pytest.mark.usefixtures("fake")
def test_the_command(dense, pruned, tmp_path, capsys):
    command = ["bench", dense, pruned, "--backends", "fake", "--seq-len", "7", "10", "--rounds", "1", "--no-memory"]
    picture, result = tmp_path / "a.svg", tmp_path / "a.json"
    with pytest.raises(SystemExit, match=r"No quality of these models is known"):
        main([*command, "--picture", str(picture)])
    base = {"base_model": {"name": "dense", "hub": False}}
    rounds = [{"before": {"loss": 2.5}, "after_recovery": {"loss": 2.75}}]
    record(tmp_path / "pruned", rounds=rounds, provenance=base)
    main([*command, "--picture", str(picture), "--json", str(result)])
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("Batch of 1, 7 tokens each", "Batch of 1, 10 tokens each", "pruned"))
    assert str(tmp_path) not in shown
    assert str(tmp_path) not in result.read_text()
    assert len(json.loads(result.read_text())["measurements"]) == 4
    assert picture.read_text().count("<!-- pruned -->") == 2  # a panel for each length
    main([*command, "--processor-time", "--json", str(result)])
    assert "Medians of the processor time" in capsys.readouterr().out
    assert max(one["milliseconds"][2] for one in json.loads(result.read_text())["measurements"]) < 2  # not the fake's
    for arguments, message in {
        ("--picture", "a.gif"): "cannot be drawn",
        ("--json", "no/such/a.json"): "no such folder",
        ("--json", str(tmp_path)): "is a folder. Give a file",
        ("--threads", "0"): "`threads` is 0; allowed is a whole number of at least 1",
        ("--dtype", "int3"): "`dtype` is 'int3'. Allowed are float32",
    }.items():
        with pytest.raises(SystemExit, match=message):
            main([*command, *arguments])


@pytest.mark.parametrize("kind", ["torch", "fake"])
def test_the_peak_rises_with_the_workload(pruned, monkeypatch, kind):
    states = iter([100, 250, 300])
    monkeypatch.setattr("schubert_hf.bench.memory._status", lambda field: next(states))
    seen = []
    open_ = SimpleNamespace(torch=BACKENDS["torch"].open, fake=lambda *_: Opened(seen.append, 1))
    monkeypatch.setitem(BACKENDS, kind, Backend(getattr(open_, kind), "torch"))
    assert measure_here(pruned, kind, [Workload(2, 11, "cpu"), Workload(1, 7, "cpu")]) == [200, 150]
    assert [tuple(one["input_ids"].shape) for one in seen] in ([], [(1, 7), (2, 11)])


@pytest.mark.slow
def test_the_peak_of_a_real_process(tmp_path, bert_config):
    """The filters of the longer batch, 37 floats for each token, have to be somewhere."""
    transformers.BertModel(bert_config(max_position_embeddings=512)).save_pretrained(tmp_path)
    short, long = peak_memory(str(tmp_path), "torch", [Workload(1, 8, "cpu"), Workload(16, 512, "cpu")])
    assert long - short > 16 * 512 * 37 * 4
