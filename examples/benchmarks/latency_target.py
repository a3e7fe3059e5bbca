"""Is a target in milliseconds met, and does time follow FLOPs? Shapes are chosen, built, and timed.

    python examples/benchmarks/latency_target.py

takes the small English BERT of this repository to 80, 60, 40 and 25 % of its time, units of small weights first, and
prints for each what was asked for and what a model of the chosen shape takes: in turns with the dense model,
by which the machine's speed at that moment is known, and alone. About a minute and a half on two cores.

    python examples/benchmarks/latency_target.py --of flops --shares 80,60,40 --batch-size 1 8 32 --seq-len 16 128 512

chooses for FLOPs instead, and prints for each batch size and length the share of the dense model's time over the share
of its FLOPs: 1 is a model that wastes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from study.tables import markdown

from schubert_hf.cli import parse
from schubert_hf.configuration_schubert import SchuBertConfig
from schubert_hf.conversion import load
from schubert_hf.cost import FlopCost
from schubert_hf.errors import one_line_errors
from schubert_hf.latency.cost import LatencyCost, meet_budget
from schubert_hf.latency.timing import Workload, quartiles, time_models
from schubert_hf.pruning.config import PruningConfig
from schubert_hf.pruning.criteria import magnitude_importance, ranks_within_groups
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.run.provenance import describe_machine, machine
from schubert_hf.shape import Shape, with_shape
from schubert_hf.training.loop_config import option

TOKENS = 4096  # of each model that are timed, about
Scores = Mapping[Group, torch.Tensor]
MODEL = Path(__file__).resolve().parents[1] / "default" / "model"


@dataclass
class Arguments:
    """What is timed."""

    model: str = option(str(MODEL), "A BERT: a folder or a name on the Hub.")
    of: str = option("time", "What the shares are of: time or flops.")
    shares: str = option("80,60,40,25", "Percent of the dense model's time or FLOPs.")
    batch_size: list[int] = field(default_factory=lambda: [1], metadata={"help": "Sequences; several for FLOPs."})
    seq_len: list[int] = field(default_factory=lambda: [128], metadata={"help": "Tokens each; several for FLOPs."})
    dimensions: str = option("hfakv", "What is cut.")
    multiple_of: str = option("8", "What widths are multiples of.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")


def main() -> None:
    (arguments,) = parse("Is a target in milliseconds met?", Arguments)
    with one_line_errors():
        use_all_cores(make_accelerator(), arguments.threads)
        model = load(arguments.model, dtype=torch.float32)
        shares = [int(share) / 100 for share in arguments.shares.split(",")]
        follow = {"time": meet_targets, "flops": follow_flops}[arguments.of]
        groups = find_groups(model.config, arguments.dimensions)
        scores = ranks_within_groups(magnitude_importance(groups, model.named_parameters()))
        follow(arguments, model.config, scores, shares)


def meet_targets(arguments: Arguments, config: SchuBertConfig, scores: Scores, shares: list[float]) -> None:
    """Shares of the dense model's time, as a target in milliseconds has them."""
    workload, began = Workload(arguments.batch_size[0], arguments.seq_len[0]), time.monotonic()
    cost = LatencyCost(config, batch_size=workload.batch_size, seq_len=workload.seq_len, progress=True)
    print(f"{describe_machine(machine())}; table and dense model timed in {time.monotonic() - began:.0f} s\n")
    dense = cost(Shape.of(config))
    multiples = PruningConfig(multiple_of=arguments.multiple_of).multiples
    rows = [["asked for", "in turns with the dense model", "off", "alone", "off"], ["---:"] * 5]
    for share in shares:
        budget = share * dense

        def choose(limit: float) -> PruningPlan:
            return select(scores, config, cost, limit, multiple_of=multiples)

        shape = meet_budget(choose, budget, cost)[0].shape
        configs = [with_shape(config, shape), config]
        ours, theirs = (quartiles(times)[0] for times in time_models(configs, workload, rounds=40))
        alone = quartiles(time_models(configs[:1], workload, rounds=40)[0])[0]
        in_turns = ours * dense / theirs  # at the speed at which the dense model was timed
        times = [f"{budget:.2f} ms", f"{in_turns:.2f} ms", f"{in_turns / budget - 1:+.1%}"]
        rows.append([*times, f"{alone:.2f} ms", f"{alone / budget - 1:+.1%}"])
    print(markdown(rows))


def follow_flops(arguments: Arguments, config: SchuBertConfig, scores: Scores, shares: list[float]) -> None:
    """Time over the dense model's time, divided by FLOPs over its FLOPs, at every batch size and length."""
    multiples = PruningConfig(multiple_of=arguments.multiple_of).multiples
    cost = FlopCost(config)
    dense = cost(Shape.of(config))
    plans = [select(scores, config, cost, share * dense, multiple_of=multiples) for share in shares]
    configs = [config, *(with_shape(config, plan.shape) for plan in plans)]
    print(
        describe_machine(machine()),
        *(f"\n{share:.0%}: {plan.shape}" for share, plan in zip(shares, plans, strict=True)),
        "\n",
    )
    rows = [["batch", "tokens", "dense", *(f"{share:.0%}" for share in shares)], ["---:"] * (3 + len(shares))]
    for batch_size, seq_len in product(arguments.batch_size, arguments.seq_len):
        workload = Workload(batch_size, seq_len)
        rounds = min(40, max(3, TOKENS // (batch_size * seq_len)))
        whole, *rest = (quartiles(times)[0] for times in time_models(configs, workload, rounds=rounds))
        flops = [one.flops(seq_len, batch_size) / config.flops(seq_len, batch_size) for one in configs[1:]]
        cells = [f"{time / whole / share:.3f}" for time, share in zip(rest, flops, strict=True)]
        rows.append([str(batch_size), str(seq_len), f"{whole:.2f} ms", *cells])
        print(" | ".join(rows[-1]), flush=True)
    print("\n" + markdown(rows))


if __name__ == "__main__":
    main()
