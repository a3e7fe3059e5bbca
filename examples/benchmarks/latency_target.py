"""Is a target in milliseconds met? Shapes are chosen for several of them, built, and timed.

    python examples/benchmarks/latency_target.py

takes the small English BERT of this repository to 80, 60, 40 and 25 % of its time, units of small weights first, and
prints for each what was asked for and what a model of the chosen shape takes: in turns with the dense model,
by which the machine's speed at that moment is known, and alone. About a minute and a half on two cores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from study.tables import markdown

from schubert_hf.cli import parse
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.errors import one_line_errors
from schubert_hf.latency.cost import LatencyCost, meet_budget
from schubert_hf.latency.timing import Workload, quartiles, time_models
from schubert_hf.pruning.config import PruningConfig
from schubert_hf.pruning.criteria import magnitude_importance, ranks_within_groups
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.selection import select
from schubert_hf.pruning.units import find_groups
from schubert_hf.run.processes import make_accelerator, use_all_cores
from schubert_hf.run.provenance import describe_machine, machine
from schubert_hf.shape import Shape, with_shape
from schubert_hf.training.loop_config import option

MODEL = Path(__file__).resolve().parents[1] / "default" / "model"


@dataclass
class Arguments:
    """What is timed."""

    model: str = option(str(MODEL), "A BERT: a folder or a name on the Hub.")
    shares: str = option("80,60,40,25", "Percent of the dense model's time.")
    batch_size: int = option(1, "Sequences.")
    seq_len: int = option(128, "Tokens per sequence.")
    threads: int | None = option(None, "Threads on the CPU. Default: one per core.")


def main() -> None:
    (arguments,) = parse("Is a target in milliseconds met?", Arguments)
    with one_line_errors():
        use_all_cores(make_accelerator(), arguments.threads)
        model = load_for_pretraining(arguments.model, dtype=torch.float32)
        shares = [int(share) / 100 for share in arguments.shares.split(",")]
        workload = Workload(arguments.batch_size, arguments.seq_len)
        began = time.monotonic()
        cost = LatencyCost(model.config, batch_size=arguments.batch_size, seq_len=arguments.seq_len, progress=True)
    print(f"{describe_machine(machine())}; table and dense model timed in {time.monotonic() - began:.0f} s\n")
    groups = find_groups(model.config, "hfakv")
    scores = ranks_within_groups(magnitude_importance(groups, model.named_parameters()))
    dense = cost(Shape.of(model.config))
    multiples = PruningConfig().multiples
    rows = [["asked for", "in turns with the dense model", "off", "alone", "off"], ["---:"] * 5]
    for share in shares:
        budget = share * dense

        def choose(limit: float) -> PruningPlan:
            return select(scores, model.config, cost, limit, multiple_of=multiples)

        shape = meet_budget(choose, budget, cost).shape
        configs = [with_shape(model.config, shape), model.config]
        ours, theirs = (quartiles(times)[0] for times in time_models(configs, workload, rounds=40))
        alone = quartiles(time_models(configs[:1], workload, rounds=40)[0])[0]
        in_turns = ours * dense / theirs  # at the speed at which the dense model was timed
        times = [f"{budget:.2f} ms", f"{in_turns:.2f} ms", f"{in_turns / budget - 1:+.1%}"]
        rows.append([*times, f"{alone:.2f} ms", f"{alone / budget - 1:+.1%}"])
    print(markdown(rows))


if __name__ == "__main__":
    main()
