"""A latency as the target: what is chosen is timed, corrected and chosen anew (several processes: see there)."""

import pytest
from accelerate import Accelerator

from schubert_hf.cost import BudgetError, FlopCost
from schubert_hf.latency.cost import LatencyCost
from schubert_hf.latency.timing import LatencyError
from schubert_hf.pruning import budget as module
from schubert_hf.run.processes import ProcessesError, on_main_process
from schubert_hf.shape import Shape


@pytest.fixture
def clock(monkeypatch, tmp_path, tiny):
    """A machine on which ragged shapes take longer than the table of even ones says."""
    work = FlopCost(tiny(), seq_len=16)

    def milliseconds(shape):
        return 0.05 * len(shape.hidden_sizes) + work(shape) / 1e6 * (1.3 if len(set(shape.filter_sizes)) > 1 else 1.0)

    class Timed(LatencyCost):
        def __init__(self, config, **options):
            options |= {"timer": lambda shapes, rounds: [milliseconds(shape) for shape in shapes]}
            super().__init__(config, **options, cache_dir=tmp_path)

    monkeypatch.setattr(module, "LatencyCost", Timed)
    return milliseconds


def test_the_model_takes_the_time_that_was_asked_for(make_pruner, tiny, clock):
    dense = clock(Shape.of(tiny()))
    options = {"cost_seq_len": 16, "multiple_of": 1, "rounds": 2, "recovery_steps": 0}
    result = make_pruner(target=f"{0.6 * dense:.4f}ms", **options).prune()
    assert result.unit == "ms"
    assert result.source_size == pytest.approx(dense)
    for record, share in zip(result.rounds, (0.8, 0.6), strict=True):
        assert record.size == pytest.approx(clock(record.shape))
        assert record.size == pytest.approx(share * dense, rel=0.05)
    by_share = make_pruner(target="60%", cost="latency", **options).prune()
    assert by_share.size == pytest.approx(0.6 * dense, rel=0.05)


def test_what_cannot_be_timed_is_refused_at_once(make_pruner, clock):
    with pytest.raises(LatencyError, match="`seq_len` is 128, but the model has 23 positions"):
        make_pruner(target="1ms")
    with pytest.raises(BudgetError, match="that is 900 ms; allowed is more than 0 and less than the model's own"):
        make_pruner(target="900ms", cost_seq_len=16)
    with pytest.raises(BudgetError, match=r"is below .*, the smallest that removing 'k' can reach"):
        make_pruner(target="10%", cost="latency", cost_seq_len=16, dimensions="k")


def test_bad_input_on_the_main_process_is_an_error_there():
    def fail():
        raise BudgetError("too small")

    with pytest.raises(BudgetError, match="too small"):
        on_main_process(Accelerator(cpu=True), fail)
    assert issubclass(ProcessesError, ValueError)
