import sys
from pathlib import Path

import pytest

from schubert_hf.latency.timing import Workload

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("wasted", [0.0, 0.5])
def test_time_that_follows_flops_shows_as_one(monkeypatch, capsys, wasted):
    """`wasted`: the share of the dense model's time that no cut takes away."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    import latency_target

    def time_models(configs, workload, **_):
        assert isinstance(workload, Workload)
        flops = [config.flops(workload.seq_len, workload.batch_size) for config in configs]
        return [[wasted * flops[0] + (1 - wasted) * own] * 3 for own in flops]

    monkeypatch.setattr(latency_target, "time_models", time_models)
    command = "x --of flops --dimensions f --multiple-of 1 --batch-size 1 8 --seq-len 16 64 --threads 1 --shares"
    monkeypatch.setattr(sys, "argv", [*command.split(), "90,80"])
    latency_target.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if " ms | " in line and line[0].isdigit()]
    assert [line.split(" | ")[:2] for line in lines] == [["1", "16"], ["1", "64"], ["8", "16"], ["8", "64"]]
    if not wasted:
        assert all(line.endswith("1.000 | 1.000") for line in lines)
    else:  # of 80 %: (0.5 + 0.5 * 0.8) / 0.8 = 1.125
        assert all(1.05 < float(line.split(" | ")[-2]) < float(line.split(" | ")[-1]) < 1.2 for line in lines)
