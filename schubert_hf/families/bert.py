"""BERT (Devlin et al. 2019, arXiv 1810.04805): SchuBERT's own names. The shipped files open it themselves."""

from __future__ import annotations

from .family import Family, Names

AS_HERE: Names = {}


class Bert(Family):
    classes = {"bert": "Bert"}
    prefix = "bert"
    heads = {
        "Model": AS_HERE,
        "ForPreTraining": AS_HERE,
        "ForMaskedLM": AS_HERE,
        "ForNextSentencePrediction": AS_HERE,
        "ForSequenceClassification": AS_HERE,
        "ForMultipleChoice": AS_HERE,
        "ForTokenClassification": AS_HERE,
        "ForQuestionAnswering": AS_HERE,
    }
