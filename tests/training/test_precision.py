"""What training multiplies in: bfloat16 on a CPU that makes such products by itself, everything else in float32."""

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.training.loop import TrainingLoop
from schubert_hf.training.loop_config import LoopConfig, LoopConfigError
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.training.precision import bfloat16_on_cpu, has_bfloat16


def test_products_are_in_bfloat16_where_the_cpu_makes_them(
    objective: Callable[[], PretrainingObjective], pairs: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = {}
    for precision in ("auto", "no"):
        own, types = objective(), set()
        layer = own.model.bert.encoder.layer[0].output.dense
        layer.register_forward_hook(lambda *called, types=types: types.add(called[2].dtype))
        config = LoopConfig(steps=4, batch_size=8, learning_rate=1e-2, precision=precision)
        loop = TrainingLoop(Accelerator(cpu=True), own, own.model.named_parameters(), config)
        found[precision] = loop.run(ExampleStream(pairs), MaskingCollator(tokenizer))
        fast = precision == "auto" and has_bfloat16(torch.device("cpu"))
        assert types == {torch.bfloat16 if fast else torch.float32}
        assert {parameter.dtype for parameter in loop.parameters} == {torch.float32}
    for one, other in zip(*found.values(), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.02)


def test_attention_stays_in_float32() -> None:
    query, key, value = (torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3))
    mask = torch.rand(2, 1, 7, 7) > 0.3
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with bfloat16_on_cpu(True):
        assert (query @ key.mT).dtype == torch.bfloat16
        own = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.equal(own, plain)


def test_no_other_precision_is_known() -> None:
    with pytest.raises(LoopConfigError, match="`precision` is 'fp8'; allowed is auto or no"):
        LoopConfig(steps=1, precision="fp8")
