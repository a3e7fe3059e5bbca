"""How a model was pruned, in words for its page: a sentence or two per method of `PruningConfig`."""

from __future__ import annotations

from typing import Any

_CUT = "are cut to an exact budget"
METHODS = {
    "auto": (
        "Keys, queries and values of every head are turned into the basis in which few of them carry all; the units "
        f"that the loss misses\nleast {_CUT}; every projection that reads what was cut is solved anew, by least "
        "squares on real text, to give what it gave\nbefore; and the smaller model is trained on, with the dense one "
        "as its teacher."
    ),
    "schubert": (
        "Algorithm 1 of Khetan & Karnin (2020): every unit gets a trainable scale, alpha, under an L1 penalty; "
        f"the units with the smallest\nalphas {_CUT}, the other alphas are folded into the weights, "
        "and the smaller model is trained on."
    ),
    "magnitude": f"The units with the smallest weights {_CUT}, and the smaller model is trained on.",
    "random": f"Units drawn at random {_CUT}, and the smaller model is trained on: a baseline.",
    "uniform": (
        "Every dimension is shrunk by the same factor, the units with the smallest weights first, to an exact "
        "budget, and the smaller\nmodel is trained on: a baseline of Khetan & Karnin (2020)."
    ),
    "layers": (
        "Whole layers are dropped, so that evenly spaced ones stay, and the smaller model is trained on: "
        "a baseline of Khetan & Karnin\n(2020)."
    ),
}


def describe_method(config: dict[str, Any]) -> str:
    """What the page of a run with these settings says; records of version 0.1 name no method.

    Args:
        config: the settings of the run, as its record has them.
    """
    return METHODS[config.get("method", "schubert")]
