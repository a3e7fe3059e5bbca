"""Makes a protein model and its text: a real BERT, trained at its full depth, with a vocabulary of 25.

    pip download --no-deps antiberty==0.1.3 && unzip antiberty-0.1.3-py3-none-any.whl 'antiberty/trained_models/*'
    pip install airrship==0.1.5
    python examples/benchmarks/antibodies.py --weights antiberty/trained_models --output-dir antibodies

writes `antibodies/model`, AntiBERTy's masked language model (8 layers, h 512, f 2048; Ruffolo et al. 2021, arXiv
2112.07782) as a checkpoint of transformers, and `train.txt` and `valid.txt`: heavy chains of antibodies, one per line,
as airrship simulates them from human genes (Sutherland et al. 2023, 10.1093/bioinformatics/btad365). The two texts are
of different simulated people.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from transformers import BertForMaskedLM, BertTokenizer

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.training.loop_config import option

# The standard genetic code, codons in the order of TCAG.
AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODE = dict(zip(map("".join, product("TCAG", repeat=3)), AMINO_ACIDS, strict=True))
LENGTHS = range(100, 127)  # with two special tokens they fit into 128
TEXTS = {"train.txt": {1: 6000, 2: 3000, 3: 3000}, "valid.txt": {4: 3000}}  # seed of a person: chains


@dataclass
class Arguments:
    """Where the weights are, and where model and texts go."""

    weights: str = option("antiberty/trained_models", "The folder `trained_models` of the package antiberty 0.1.3.")
    output_dir: str = option("antibodies", "Folder for model and texts.")


def main() -> None:
    (arguments,) = parse("Makes a protein model and its text.", Arguments)
    with one_line_errors():
        weights, output = Path(arguments.weights), Path(arguments.output_dir)
        if not (weights / "vocab.txt").exists():
            raise PruningConfigError(
                f"`weights` is `{weights}`, which holds no vocab.txt; `--help` says what to give."
            )
        output.mkdir(parents=True, exist_ok=True)
        BertForMaskedLM.from_pretrained(weights / "AntiBERTy_md_smooth").save_pretrained(output / "model")
        BertTokenizer(str(weights / "vocab.txt"), do_lower_case=False).save_pretrained(output / "model")
        for name, people in TEXTS.items():
            chains = [chain for seed, number in people.items() for chain in simulate(seed, number)]
            random.Random(0).shuffle(chains)
            (output / name).write_text("".join(f"{' '.join(chain)}\n" for chain in chains), encoding="utf-8")
            print(f"{output / name}: {len(chains):,} chains")


def simulate(seed: int, number: int) -> list[str]:
    """Heavy chains of a person, as amino acids."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["airrship", "-o", "chains", "--outdir", folder, "-n", str(number), "--shm", "--seed", str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "chains.fasta").read_text(encoding="utf-8").splitlines()
    chains = [translate(line) for line in lines if not line.startswith(">")]
    return [chain for chain in chains if len(chain) in LENGTHS and chain.isalpha()]


def translate(bases: str) -> str:
    """Bases to amino acids; `*` where a chain stops, "?" for what is no codon."""
    return "".join(CODE.get(bases[start : start + 3], "?") for start in range(0, len(bases) - 2, 3))


if __name__ == "__main__":
    main()
