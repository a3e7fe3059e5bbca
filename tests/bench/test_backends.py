"""Exported files are found and run beside PyTorch, whose models can be compiled."""

import importlib.util

import pytest
import torch
import transformers
from oracles import RAGGED

from schubert_hf import SchuBertForMaskedLM
from schubert_hf.bench.backends import BACKENDS, random_inputs
from schubert_hf.bench.checkpoint import Checkpoint
from schubert_hf.bench.comparing import compare
from schubert_hf.latency.timing import Workload

SMALL = {"seq_lens": [7], "rounds": 1, "memory": False}


def export(folder):
    """Writes the files that an export writes, of a model that adds up its inputs' embeddings."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    table = numpy_helper.from_array(torch.randn(99, 5).numpy(), "table")
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "seq"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, ["batch", "seq", 5])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["real"]),
        helper.make_node("Gather", ["table", "real"], ["last_hidden_state"]),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], [table])
    (folder / "onnx").mkdir()
    (folder / "openvino").mkdir()
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(folder / "onnx" / "model.onnx"))
    return folder / "onnx" / "model.onnx"


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_exported_files_are_found_and_run(pruned, dense, tmp_path, kind):
    pytest.importorskip(BACKENDS[kind].package)
    path = export(tmp_path / "pruned")
    if kind == "openvino":
        openvino = pytest.importorskip("openvino")
        openvino.save_model(openvino.convert_model(str(path)), str(tmp_path / "pruned" / BACKENDS[kind].file))
    comparison = compare([dense, pruned], batch_sizes=[3], **SMALL)  # by itself: what is there
    assert ("pruned", kind) in [(one.model, one.backend) for one in comparison.measurements]
    assert [one.model for one in comparison.measurements].count("dense") == 1
    found = next(one for one in comparison.measurements if one.backend == kind)
    assert found.weights > 4 * 99 * 5
    only = compare([dense, pruned], backends=[kind], **SMALL)
    assert [one.model for one in only.measurements] == ["pruned"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch._inductor") is None, reason="nothing compiles here")
@pytest.mark.filterwarnings("ignore")
def test_compiled(tmp_path, bert_config, ragged):
    """Of one layer each: a compiler takes seconds for every kernel."""
    transformers.BertForMaskedLM(bert_config(num_hidden_layers=1)).save_pretrained(tmp_path / "dense")
    first = {name: sizes[:1] for name, sizes in RAGGED.items() if isinstance(sizes, list)}
    SchuBertForMaskedLM(ragged(**first)).save_pretrained(tmp_path / "pruned")
    folders = [str(tmp_path / name) for name in ("dense", "pruned")]
    comparison = compare(folders, backends=["compiled"], batch_sizes=[1, 2], **SMALL)
    assert [one.backend for one in comparison.measurements] == ["compiled"] * 4


def test_inputs_have_no_padding(dense):
    inputs = random_inputs(Checkpoint.find(dense), Workload(2, 11, "cpu"))
    assert inputs.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert {tuple(x.shape) for x in inputs.values()} == {(2, 11)}
    assert inputs["attention_mask"].all()
    assert not inputs["token_type_ids"].any()


def test_sequences_of_a_multiple_choice_head_are_choices(bert_config, tmp_path):
    transformers.BertForMultipleChoice(bert_config()).save_pretrained(tmp_path / "choice")
    name = str(tmp_path / "choice")
    inputs = random_inputs(Checkpoint.find(name), Workload(2, 7, "cpu"))
    assert {tuple(x.shape) for x in inputs.values()} == {(1, 2, 7)}
    assert len(compare([name], backends=["torch"], batch_sizes=[1, 2], **SMALL).measurements) == 2
