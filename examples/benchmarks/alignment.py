"""How much faster widths are that are multiples of 2, 4, ... 64, on this machine.

    python examples/benchmarks/alignment.py

times models whose one width runs through a window around two thirds of BERT-base's, and of the small default model's:
of heads alone for k and v, of filters alone for f, of both for h. All of them take turns, and what counts are ratios
within one run, so that other load matters little; least of all with `--threads 1`. It takes a few minutes and prints a
table, with the smallest multiple per dimension beyond which less than 2 % is to be gained: what to give as
`multiple_of`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch

from schubert_hf import SchuBertConfig
from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.latency.timing import Workload, quartiles, time_models
from schubert_hf.run.provenance import describe_machine, machine, versions
from schubert_hf.shape import Shape, with_shape
from schubert_hf.training.loop_config import option

LAYERS = 2
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
SIZES = {  # full widths of h, f, a, k, v
    "BERT-base": {"h": 768, "f": 3072, "a": 12, "k": 64, "v": 64},
    "default": {"h": 192, "f": 768, "a": 6, "k": 32, "v": 32},
}
# What runs through the window, and what the model is of beside it: filters alone tell most about f.
ROWS = {"h": "hfakv", "f": "hf", "k": "hakv", "v": "hakv", "kv": "hakv"}


@dataclass
class Arguments:
    """What is timed."""

    batch_size: int = option(1, "Sequences.")
    seq_len: int = option(128, "Tokens per sequence.")
    device: str = option("", 'Where: "cpu", "cuda", ...; by default a GPU where there is one.')
    threads: int = option(0, "Threads on the CPU; 0 leaves torch's own number.")
    rounds: int = option(12, "Turns of every model.")
    per_multiple: int = option(3, "Widths for each multiple.")
    seconds: float = option(40.0, "Time per row of the table, about.")
    gain: float = option(0.02, "Share of the time that a larger multiple must save, or it is not worth it.")


def main() -> None:
    (arguments,) = parse("Times widths by what they are multiples of.", Arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with one_line_errors():
        workload = Workload(arguments.batch_size, arguments.seq_len, arguments.device or None)
    print_table(arguments, workload)


def print_table(arguments: Arguments, workload: Workload) -> None:
    """Times every row of the table, and prints it as soon as it is known."""
    print(f"{describe_machine(machine())}; on {workload.device}; {workload.batch_size} x {workload.seq_len} tokens.")
    print(", ".join(f"{name} {version}" for name, version in versions().items() if name in ("torch", "transformers")))
    print("\nTime at widths that are multiples of m and of no more, as a share of that at the largest multiple:\n")
    print(f"| model | width | window | {' | '.join(map(str, MULTIPLES))} | recommended |")
    print("|---" * (len(MULTIPLES) + 4) + "|")
    for name, full in SIZES.items():
        for row in ROWS:
            chosen = choose_widths(full[row[0]], arguments.per_multiple)
            widths = sorted({width + step for m, exact in chosen.items() for width in exact for step in (-m, 0, m)})
            configs = [make_config(full, row, width, arguments.seq_len) for width in widths]
            samples = time_models(configs, workload, rounds=arguments.rounds, seconds=arguments.seconds)
            ratios = compare_multiples(
                dict(zip(widths, (quartiles(times)[0] for times in samples), strict=True)), chosen
            )
            cells = [f"{ratios[multiple]:.3f}" if multiple in ratios else "" for multiple in MULTIPLES]
            window = f"{widths[0]} to {widths[-1]}"
            best = recommend(ratios, arguments.gain)
            print(
                f"| {name} | {'k = v' if row == 'kv' else row} | {window} | {' | '.join(cells)} | {best} |", flush=True
            )


def choose_widths(full: int, per_multiple: int) -> dict[int, list[int]]:
    """For each multiple m widths that are multiples of m and of no more: those nearest to two thirds of `full`.

    Their neighbours w - m and w + m, which are multiples of 2 m, are widths too.
    """
    chosen = {}
    for multiple in MULTIPLES[:-1]:
        exact = range(multiple, full - multiple + 1, 2 * multiple)
        near = sorted((width for width in exact if width > multiple), key=lambda width: abs(width - 2 * full / 3))
        if near:
            chosen[multiple] = sorted(near[:per_multiple])
    return chosen


def make_config(full: dict[str, int], row: str, width: int, seq_len: int) -> SchuBertConfig:
    """A model of equal layers in which the dimensions of `row` have this width."""
    sizes = {"h": full["h"], "f": 0, "a": 0, "k": 1, "v": 1}
    sizes |= {dimension: full[dimension] for dimension in ROWS[row]} | dict.fromkeys(row, width)
    small = SchuBertConfig(vocab_size=1000, max_position_embeddings=max(seq_len, 128))
    return with_shape(small, Shape(*((sizes[dimension],) * LAYERS for dimension in "hfakv")))


def compare_multiples(milliseconds: dict[int, float], chosen: dict[int, list[int]]) -> dict[int, float]:
    """The time at multiples of m and no more, as a share of that at multiples of the largest.

    Each step from m to 2 m is seen on the spot: the time at w is set against the mean of those at w - m and w + m, so
    that it does not matter how time grows with the width. The steps are then multiplied.
    """
    ratios = {2 * max(chosen): 1.0}
    for multiple in sorted(chosen, reverse=True):
        step = statistics.fmean(
            2 * milliseconds[width] / (milliseconds[width - multiple] + milliseconds[width + multiple])
            for width in chosen[multiple]
        )
        ratios[multiple] = step * ratios[2 * multiple]
    return dict(sorted(ratios.items()))


def recommend(ratios: dict[int, float], gain: float) -> int:
    """The smallest multiple beyond which no larger one saves more than this share."""
    return next(
        multiple
        for multiple, ratio in ratios.items()
        if all(other >= ratio * (1 - gain) for larger, other in ratios.items() if larger > multiple)
    )


if __name__ == "__main__":
    main()
