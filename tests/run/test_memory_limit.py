"""How much memory a machine has, and what a run is told that does not fit into it."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import Accelerator
from oracles import ragged

from schubert_hf import SchuBertForPreTraining
from schubert_hf.run import memory
from schubert_hf.run.memory import (
    GIB,
    MemoryEstimate,
    MemoryLimitError,
    check_memory,
    device_memory,
    estimate_training,
)
from schubert_hf.training.objective import PretrainingObjective

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine with GiB of memory, of a container's own group whose files the folder holds."""

    def build(free: float, total: float) -> Path:
        state = SimpleNamespace(available=int(free * GIB), total=int(total * GIB))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
        monkeypatch.setattr(memory, "CGROUP", tmp_path)
        return tmp_path

    return build


def test_memory_of_this_machine() -> None:
    free, total = device_memory(CPU)
    assert 0 < free <= total
    assert device_memory(CPU, 2)[1] == total // 2


def test_memory_of_a_container(machine: Callable[..., Path]) -> None:
    group = machine(free=6, total=8)
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group / "memory.current").write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    assert device_memory(CPU) == (2 * GIB, 4 * GIB)
    (group / "memory.max").write_text("max\n")
    assert device_memory(CPU) == (6 * GIB, 8 * GIB)


def test_memory_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has reserved is its own to use; processes do not share the device."""
    module = SimpleNamespace(mem_get_info=lambda device: (5 * GIB, 8 * GIB), memory_reserved=lambda device: 2 * GIB)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert device_memory(torch.device("cuda"), processes=4) == (7 * GIB, 8 * GIB)


class Run:
    """A run of a tiny model, what it is estimated to need, and its check."""

    def __init__(self) -> None:
        self.objective = PretrainingObjective(SchuBertForPreTraining(ragged()))
        ids = torch.randint(5, 99, (4, 20))
        names = ("input_ids", "attention_mask", "token_type_ids", "labels")
        values = (ids, torch.ones_like(ids), torch.zeros_like(ids), ids)
        self.batch = {**dict(zip(names, values, strict=True)), "next_sentence_label": torch.zeros(4, dtype=torch.long)}
        self.estimate: MemoryEstimate = estimate_training(Accelerator(cpu=True), self.objective, self.batch, free=0)

    def need(self, examples: int, *, accumulates: bool = False) -> float:
        """GiB, and a little more."""
        return (self.estimate.total(examples, accumulates=accumulates) + 100) / GIB

    def check(self, examples: int, accelerator: Accelerator | None = None, **options: int) -> None:
        accelerator = accelerator or Accelerator(cpu=True)
        check_memory(
            accelerator, self.objective, self.batch, batch_size=examples * accelerator.num_processes, **options
        )


@pytest.fixture
def run() -> Run:
    return Run()


def test_silent_where_it_fits_and_a_warning_where_others_use_too_much(
    run: Run, machine: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    machine(free=run.need(160), total=2 * run.need(160))
    with caplog.at_level(logging.WARNING):
        run.check(160)
        assert not caplog.records
        run.check(161)
    (message,) = caplog.messages
    assert message.startswith("The run may run out of memory: micro-batches of 161 examples need about 0.")
    assert "GiB to train, and `cpu` has 0." in message


@pytest.mark.parametrize("examples", [141, 200, 10**6])
def test_names_the_largest_micro_batch_that_fits(run: Run, machine: Callable[..., Path], examples: int) -> None:
    """Where several micro-batches accumulate, the activations of one stand beside the gradients."""
    machine(free=0, total=run.need(140))
    run.check(140)  # at once; fits, though not into what is free
    with pytest.raises(MemoryLimitError, match=r"weights 0\.\d\d.*activations.*`cpu` has 0\.\d\d GiB") as error:
        run.check(examples)
    size = int(str(error.value).split("`--micro-batch-size` ")[1].split()[0])
    assert run.need(size, accumulates=True) <= run.need(140) < run.need(size + 1, accumulates=True)
    assert size < 140
    run.check(examples, micro_batch_size=size)


def test_a_model_that_is_too_large(run: Run, machine: Callable[..., Path]) -> None:
    class Two(Accelerator):
        num_processes = 2

    machine(free=1, total=run.need(1) * 1.5)
    run.check(1)
    with pytest.raises(MemoryLimitError, match=r"for each of 2 processes\. Not even `--micro-batch-size` 1 fits"):
        run.check(16, Two(cpu=True))
    machine(free=1, total=run.need(1) / 2)
    with pytest.raises(MemoryLimitError, match="Not even"):
        run.check(1)
