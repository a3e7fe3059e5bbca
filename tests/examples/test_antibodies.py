"""The protein model's text: bases are translated as the genetic code says, and what is no whole chain is left out."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "benchmarks"))

import antibodies as example


def test_translation():
    assert example.translate("ATGTTTAAACCCGGGTAA") == "MFKPG*"  # a start, four residues, a stop
    assert example.translate("TGGNNNGATT") == "W?D"  # an unknown base; two thirds of a codon are left over
    assert len(example.CODE) == 64
    assert example.AMINO_ACIDS.count("*") == 3


def test_whole_chains_alone(monkeypatch):
    def airrship(command, **_):
        folder = Path(command[command.index("--outdir") + 1])
        bodies = ["TGG" * 110, "TGG" * 99, "TGG" * 50 + "TAA" + "TGG" * 60, "TGG" * 50 + "NNN" + "TGG" * 60]
        (folder / "chains.fasta").write_text("".join(f">{place}\n{body}\n" for place, body in enumerate(bodies)))

    monkeypatch.setattr(example.subprocess, "run", airrship)
    assert example.simulate(0, 4) == ["W" * 110]
