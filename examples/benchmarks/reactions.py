"""Makes a chemistry model and its text: a BERT of 12 layers, trained at its full depth, with a vocabulary of 591.

    pip download --no-deps rxnfp==0.1.0 molsets==0.3.1
    unzip rxnfp-0.1.0-py3-none-any.whl 'rxnfp/models/*' && unzip molsets-0.3.1-py3-none-any.whl 'moses/dataset/*'
    pip install rdkit
    python examples/benchmarks/reactions.py --weights rxnfp/models/transformers --molecules moses/dataset/data

writes `reactions/model`, the masked language model of rxnfp (12 layers, h 256, f 512; Schwaller et al. 2021,
10.1038/s42256-020-00284-w), and `reactions/classifier`, the same fine-tuned by its authors on 50 classes of reactions,
as checkpoints of transformers; and `train.txt` and `valid.txt`: reactions, one per line, in the notation that the
model was trained on. Their products are real molecules (MOSES, Polykovskiy et al. 2020, 10.3389/fphar.2020.565644),
their reactants what a chemist would make them from by one of the steps below, with usual reagents.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

from schubert_hf.cli import parse
from schubert_hf.errors import one_line_errors
from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.training.loop_config import option

MODELS = {
    "model": ("bert_pretrained", BertForMaskedLM),
    "classifier": ("bert_ft_10k_25s", BertForSequenceClassification),
}
TEXTS = {"train.txt": ("train.csv.gz", 40000), "valid.txt": ("test.csv.gz", 3000)}  # molecules, reactions
MOST = 126  # tokens: with two special ones they fit into 128
# A bracketed atom, an element of two letters, a bond to a numbered ring of two digits, ">>", or a single sign.
SPLIT = pre_tokenizers.Split(Regex(r"\[[^\]]+\]|Br|Cl|%[0-9]{2}|>>|."), behavior="isolated")
# From a product back to its reactants, and what is added.
STEPS = [
    # amides from acids, and from acid chlorides
    (
        "[CX3:1](=[O:2])([#6:3])-!@[NX3;!$(N(C=O)C=O);!$(NS):4]>>[C:1](=[O:2])([#6:3])O.[N:4]",
        "CCN(C(C)C)C(C)C.CN(C)C=O",
    ),
    ("[CX3:1](=[O:2])([#6:3])-!@[NX3;!$(N(C=O)C=O);!$(NS):4]>>[C:1](=[O:2])([#6:3])Cl.[N:4]", "CCN(CC)CC.ClCCl"),
    (
        "[S:1](=[O:2])(=[O:3])([#6:4])-!@[NX3:5]>>[S:1](=[O:2])(=[O:3])([#6:4])Cl.[N:5]",
        "ClCCl.c1ccncc1",
    ),  # sulfonamides
    ("[c:1]-!@[c:2]>>[c:1]Br.[c:2]B(O)O", "C1COCCO1.O=C([O-])[O-].[K+].[K+].O"),  # Suzuki couplings
    ("[c:1][O:2]-!@[CH2,CH3:3]>>[c:1][O:2].[C:3]Br", "CN(C)C=O.O=C([O-])[O-].[K+].[K+]"),  # ethers of phenols
    # reductive aminations
    (
        "[NX3;!$(N[C,S]=O):1]-!@[CH2:2][#6:3]>>[N:1].[C:2](=O)[#6:3]",
        "CC(=O)O[BH-](OC(C)=O)OC(C)=O.ClCCl.[Na+]",
    ),
    ("[c;$(c:n):1]-!@[NX3;!$(NC=O):2]>>[c:1]Cl.[N:2]", "CCN(C(C)C)C(C)C.CC(C)O"),  # amines on pyridines and their like
    ("[NX3:1]-!@[C:2](=[O:3])[NH:4]>>[N:1].[C:2](=[O:3])=[N:4]", "C1CCOC1"),  # ureas from isocyanates
    ("[#6:1][CX3:2](=[O:3])[OH:4]>>[#6:1][C:2](=[O:3])[O:4]C", "C1CCOC1.O.[Li+].[OH-]"),  # acids from their esters
    ("[c:1][NH2:2]>>[c:1][N+:2](=O)[O-]", "CCO.[Fe]"),  # anilines from nitro compounds
]


@dataclass
class Arguments:
    """Where weights and molecules are, and where models and texts go."""

    weights: str = option("rxnfp/models/transformers", "The folder of models in the package rxnfp 0.1.0.")
    molecules: str = option("moses/dataset/data", "The folder of data in the package molsets 0.3.1.")
    output_dir: str = option("reactions", "Folder for models and texts.")


def main() -> None:
    (arguments,) = parse("Makes a chemistry model and its text.", Arguments)
    with one_line_errors():
        weights, molecules, output = map(Path, (arguments.weights, arguments.molecules, arguments.output_dir))
        for setting, given, needed in (
            ("weights", weights, "bert_pretrained"),
            ("molecules", molecules, "train.csv.gz"),
        ):
            if not (given / needed).exists():
                raise PruningConfigError(
                    f"`{setting}` is `{given}`, which holds no {needed}; `--help` says what to give."
                )
        for name, (folder, kind) in MODELS.items():
            kind.from_pretrained(weights / folder).save_pretrained(output / name)
            make_tokenizer(weights / folder / "vocab.txt").save_pretrained(output / name)
        for name, (file, number) in TEXTS.items():
            with gzip.open(molecules / file, "rt", encoding="utf-8") as opened:
                products = (row["SMILES"] for row in csv.DictReader(opened))
                lines = list(islice(reactions(products, random.Random(0)), number))
            (output / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            print(f"{output / name}: {len(lines):,} reactions")


def make_tokenizer(vocabulary: Path) -> PreTrainedTokenizerFast:
    """The words of a file, one per line, for text that is cut up by `SPLIT`."""
    words = {word: number for number, word in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = SPLIT
    made.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **special)


def reactions(products: Iterator[str], rng: random.Random) -> Iterator[str]:
    """One reaction for each product that a step leads to and that is short enough, all molecules in canonical form."""
    for product in products:
        found = [(reactants, added) for step, added in STEPS for reactants in precursors(step, product)]
        if found:
            reactants, added = rng.choice(found)
            line = f"{'.'.join(sorted([*reactants, *added.split('.')]))}>>{product}"
            if number_of_tokens(line) <= MOST:
                yield line


def precursors(step: str, product: str) -> list[list[str]]:
    """What a product may be made from by a step, from its last stage back."""
    from rdkit import Chem

    found = []
    for molecules in _reaction(step).RunReactants((_molecule(product),)):
        if all(Chem.SanitizeMol(one, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE for one in molecules):
            found.append([Chem.MolToSmiles(one) for one in molecules])
    return found


def number_of_tokens(line: str) -> int:
    return len(SPLIT.pre_tokenize_str(line))


@lru_cache(maxsize=1)  # every step is tried on a product before the next
def _molecule(product: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmiles(product)


@cache
def _reaction(step: str) -> Any:
    from rdkit import rdBase
    from rdkit.Chem import AllChem

    rdBase.DisableLog("rdApp.*")
    return AllChem.ReactionFromSmarts(step)


if __name__ == "__main__":
    main()
