r"""A multilingual encoder becomes an English one: its vocabulary is trimmed and half of its encoder pruned, in one go.

    python examples/benchmarks/large_vocabulary.py --text corpus.txt --output-dir large

makes a sentence encoder of XLM-R's shape (12 layers, 768 wide, 278M parameters) of random weights, whose vocabulary is
a Unigram model of 250,002 pieces: the text's own words and their parts, its characters, and made-up words of other
scripts. Then it runs

    schubert prune large/dense --vocabulary 99.9% --target 50% --cost flops --text corpus.txt --recovery-steps 0 \
        --output-dir large/small

and opens the result in a process of its own that cannot import this package. Time and peak memory of each step are
printed. The model knows nothing: what is measured is whether the way is open, and what it takes: 12 minutes and 7.0 GB
on two cores, half of the time with other work on one of them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path

import torch
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

from schubert_hf.cli import parse
from schubert_hf.data.sources import texts_of
from schubert_hf.data.text import load_documents
from schubert_hf.errors import one_line_errors
from schubert_hf.run.provenance import describe_machine, machine, versions
from schubert_hf.training.loop_config import option

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LONGEST_PART = 6  # characters of a piece that is no whole word
SCRIPTS = (
    "αβγδεζηθικλμνξοπρστυφχψω",
    "абвгдежзиклмнопрстуфхцчшыэюя",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "あいうえおかきくけこさしすせそ",
)
# What a process that cannot import this package does with the result.
OPEN = """
import importlib.abc, json, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "schubert_hf":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu", trust_remote_code=True)
found = model.encode(["The sailor sees a river.", "An old house."])
facts = {"parameters": sum(parameter.numel() for parameter in model[0].model.parameters())}
facts |= {"words": len(model.tokenizer), "shape": found.shape, "finite": bool((found == found).all())}
print(json.dumps(facts))
"""


@dataclass
class Arguments:
    """What is made, and of which text."""

    text: str | None = option(None, "English text: a file, a folder or a dataset on the Hub.")
    output_dir: str = option("large-vocabulary", "Folder for the encoder and what becomes of it.")
    vocabulary: str = option("99.9%", "As `schubert prune --vocabulary`.")
    target: str = option("50%", "Of the encoder's FLOPs.")
    pieces: int = option(250_002, "Words of the vocabulary.", least=1000)
    hidden_size: int = option(768, "Width.")
    layers: int = option(12, "Layers.")
    threads: int = option(2, "Threads on the CPU.")
    seed: int = option(0, "Of weights and made-up words.")


def main() -> None:
    (arguments,) = parse("Trims a vocabulary of 250,000 words and prunes half of the encoder.", Arguments)
    if arguments.text is None:
        raise SystemExit("error: `--text` is missing: an English text.")
    output = Path(arguments.output_dir)
    dense, small = output / "dense", output / "small"
    torch.set_num_threads(arguments.threads)
    with one_line_errors():
        build(arguments, dense)
    command = [sys.executable, "-m", "schubert_hf", "prune", str(dense), "--vocabulary", arguments.vocabulary]
    command += ["--target", arguments.target, "--cost", "flops", "--text", arguments.text, "--output-dir", str(small)]
    command += ["--recovery-steps", "0", "--report-to", "none", "--threads", str(arguments.threads)]
    run("trimmed and pruned", command)
    run("opened in a clean process", [sys.executable, "-c", OPEN, str(small)])
    print(f"{describe_machine(machine())}. Versions: {json.dumps(versions())}")


def build(arguments: Arguments, folder: Path) -> None:
    """Writes the sentence encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    if (folder / "modules.json").exists():
        return
    pieces = make_pieces(texts_of(load_documents(arguments.text or "")), arguments.pieces, arguments.seed)
    tokenizer = XLMRobertaTokenizer(vocab=pieces, model_max_length=512)
    torch.manual_seed(arguments.seed)
    width = arguments.hidden_size
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    plain = folder.with_name("plain")
    model = XLMRobertaModel(config)
    print(f"An XLM-R of {sum(x.numel() for x in model.parameters()):,} parameters and {len(tokenizer):,} words.")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=256), Pooling(width), Normalize()]
    prompts = {"query": "query: ", "document": "passage: "}
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder))


def make_pieces(texts: Iterator[str], number: int, seed: int) -> list[tuple[str, float]]:
    """A Unigram vocabulary: XLM-R's special words, the text's words, parts and characters, and made-up ones.

    The more frequent a piece is, the higher its score, its logarithmic share; a word is worth more than its parts.
    """
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.split())
    letters: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for word, times in words.items():
        marked = f"▁{word}"
        for letter in marked:
            letters[letter] += times
        for start, stop in itertools.combinations(range(len(marked) + 1), 2):
            if 2 <= stop - start <= LONGEST_PART:
                parts[marked[start:stop]] += times
    for script in SCRIPTS:
        letters.update(script)
    room = number - len(SPECIAL) - 1 - len(letters)
    known = {f"▁{word}": times for word, times in words.most_common(room // 4) if len(word) > 1}
    known |= dict(parts.most_common(room // 8))
    known = {piece: times for piece, times in known.items() if piece not in (*SPECIAL, "<mask>")}
    generator, total = random.Random(seed), sum(words.values())
    invented = set[str]()
    while len(invented) < room - len(known):
        script = generator.choice(SCRIPTS)
        invented.add("▁" * generator.randint(0, 1) + "".join(generator.choices(script, k=generator.randint(2, 8))))
    scores = [(piece, log(times / total)) for piece, times in sorted(known.items(), key=lambda pair: -pair[1])]
    scores += [(piece, log(0.5 / total)) for piece in sorted(invented)]
    scores += [(letter, log(times / total / 100)) for letter, times in letters.most_common()]
    return [*((word, 0.0) for word in SPECIAL), *scores, ("<mask>", 0.0)]


def run(what: str, command: list[str]) -> None:
    """Runs a command, and prints the time it took and its peak of memory."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"})
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    if status:
        raise SystemExit(f"error: the step '{what}' failed.")
    print(f"{what}: {took:.0f} s, {peak(usage):.2f} GB at most", flush=True)


def peak(usage: resource.struct_rusage) -> float:
    """Memory that a process held at most, in GB."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    main()
