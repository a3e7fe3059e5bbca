"""Opens a published model as a stranger does: remote code, this package out of reach. Run by test_opens_anywhere.py.

    python open_anywhere.py NAME-OR-FOLDER [OLDER-REVISION]

Prints JSON: what each class and library made of it.
"""

import importlib.abc
import json
import sys


class Hide(importlib.abc.MetaPathFinder):
    """Makes `schubert_hf` impossible to import, however it is installed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "schubert_hf":
            raise ModuleNotFoundError(f"{fullname} is hidden")


sys.meta_path.insert(0, Hide())

import torch  # noqa: E402
import transformers  # noqa: E402

HEADS = ("PreTraining", "MaskedLM", "NextSentencePrediction", "SequenceClassification", "MultipleChoice")
HEADS = ("", *(f"For{head}" for head in (*HEADS, "TokenClassification", "QuestionAnswering")))


def main():
    name, older = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    trust = {"trust_remote_code": True}
    ids = torch.arange(1, 8)[None]
    found = {"version": transformers.__version__, "heads": {}}
    for head in HEADS:
        model = getattr(transformers, f"AutoModel{head}").from_pretrained(name, **trust)
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        with torch.no_grad():
            output = model(ids[None] if "MultipleChoice" in head else ids)
        assert all(torch.isfinite(part).all() for part in output.to_tuple() if torch.is_tensor(part))
        found["heads"][f"AutoModel{head}"] = type(model).__name__

    def logits(**kwargs):
        return transformers.AutoModelForMaskedLM.from_pretrained(name, **trust, **kwargs)(ids).logits.sum().item()

    found["logits"] = logits()
    if older is not None:
        found["older"] = logits(revision=older)
    pipe = transformers.pipeline("fill-mask", model=name, **trust)
    found["pipeline"] = len(pipe("word1 [MASK] word2", top_k=3))
    features = transformers.pipeline("feature-extraction", model=name, **trust)
    found["features"] = len(features("word1 word2")[0][0])
    try:
        import sentence_transformers
    except ModuleNotFoundError:
        found["sentence_transformers"] = None
    else:
        encoder = sentence_transformers.SentenceTransformer(name, device="cpu", **trust)
        found["sentence_transformers"] = list(encoder.encode(["word1 word2", "word3"]).shape)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
