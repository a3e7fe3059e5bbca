"""The chemistry model's text: steps backwards from products, in words that the model knows."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "benchmarks"))

import reactions as example

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "O", "Cl", "[nH]", "(", ")", "=", "1", "%10", ".", ">>"]


def test_tokens_are_atoms_bonds_and_signs(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = example.make_tokenizer(tmp_path / "vocab.txt")
    line = "CC(=O)Cl.C1[nH]C%10>>CO"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(line)["input_ids"])
    assert tokens[1:-1] == [
        *("C", "C", "(", "=", "O", ")", "Cl", "."),
        *("C", "1", "[nH]", "C", "%10", ">>", "C", "O"),
    ]
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert example.number_of_tokens(line) == len(tokens) - 2
    assert tokenizer.unk_token_id in tokenizer("CBr")["input_ids"]


def test_products_without_a_step_and_long_ones_are_left_out(monkeypatch):
    monkeypatch.setattr(example, "STEPS", [("step", "Cl.B")])
    monkeypatch.setattr(example, "precursors", lambda step, product: [["O", "C"]] if "N" in product else [])
    products = ["CN", "CC", "N" * 200, "NO"]
    assert list(example.reactions(iter(products), random.Random(0))) == ["B.C.Cl.O>>CN", "B.C.Cl.O>>NO"]


def test_an_amide_comes_from_an_acid_and_an_amine():
    pytest.importorskip("rdkit")
    assert example.precursors(example.STEPS[0][0], "CC(=O)NC") == [["CC(=O)O", "CN"]]
    assert example.precursors(example.STEPS[0][0], "CCC") == []
