"""Opened, taken apart and saved again, a sentence encoder gives what it gave."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from schubert_hf import PruningConfig
from schubert_hf.conversion import convert_bert
from schubert_hf.encoders.dense_width import fit_map
from schubert_hf.encoders.sentence_encoder import SentenceEncoder
from schubert_hf.front.arguments import PruneArguments
from schubert_hf.front.jobs import open_job

TEXTS = ["The king sees a bird at sea.", "A river.", "The doctor follows the old farmer near the red door 7."]


@pytest.mark.parametrize(("pooling", "dense"), [("mean", None), ("cls", 13), (("mean", "max"), 13)])
def test_it_embeds_as_its_library_does(sentence_transformer, pooling, dense, tmp_path):
    source = sentence_transformer(pooling, dense)
    expected = source.encode(TEXTS, convert_to_tensor=True)
    encoder = SentenceEncoder.open(source)
    inputs = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    states = encoder.model(**inputs).last_hidden_state
    found = encoder.embed(states, inputs["attention_mask"])
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert encoder.model.embeddings.word_embeddings.weight.grad is not None
    encoder.save(tmp_path / "whole", convert_bert(encoder.model))
    saved = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    assert torch.allclose(saved.encode(TEXTS, convert_to_tensor=True), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "weightedmean", ("max", "lasttoken")])
def test_a_prompt_that_the_pooling_leaves_out_is_left_out_in_training(sentence_transformer, corpus, pooling):
    """Texts with and without their prompts, in one batch, as `encode` embeds each of them."""
    source = sentence_transformer(pooling)
    source.set_pooling_include_prompt(False)
    names = ["query", "document", "query"]
    expected = [source.encode(text, prompt_name=name) for text, name in zip(TEXTS, names, strict=True)]
    encoder = SentenceEncoder.open(source)
    begun = [source.prompts[name] + text for text, name in zip(TEXTS, names, strict=True)]
    inputs = encoder.tokenizer(begun, padding=True, return_tensors="pt")
    states = encoder.model(**inputs).last_hidden_state
    found = encoder.embed(states, inputs["attention_mask"], inputs["input_ids"])
    assert torch.allclose(found, torch.tensor(np.stack(expected)), atol=1e-6)

    job = open_job(PruneArguments(model=source, text=corpus, max_length=24), PruningConfig(eval_examples=8))
    batch = job.collator([job.held_out[number] for number in range(8)])
    objective = job.objective.taught_by(job.model, batch, temperature=1.0, seed=0)(job.model)
    start = [encoder.tokenizer.cls_token_id, *encoder.tokenizer("the king: ", add_special_tokens=False)["input_ids"]]
    given = objective.predict(batch).logits["embedding"]
    for row, ids in enumerate(batch["input_ids"].tolist()):
        begins = ids[: len(start)] == start
        text = encoder.tokenizer.decode(ids[len(start) if begins else 0 :], skip_special_tokens=True)
        wanted = source.encode(text, prompt_name="query" if begins else "document")
        assert torch.allclose(given[row], torch.tensor(wanted), atol=1e-5)


def test_the_map_finds_what_the_cut_channels_were():
    """Channels that are linear in those that stay are restored, whatever the text; those that stay are untouched."""
    torch.manual_seed(0)
    own = torch.randn(400, 6)
    mixing = torch.randn(3, 6)
    channels, cut = [0, 2, 3, 5, 7, 8], [1, 4, 6]
    dense = torch.empty(400, 9)
    dense[:, channels], dense[:, cut] = own, own @ mixing.mT + 2
    weight, bias = fit_map(own, dense, channels, 9)
    new = torch.randn(5, 6)
    found = new @ weight.mT + bias
    assert torch.allclose(found[:, channels], new, atol=1e-6)
    assert torch.allclose(found[:, cut], new @ mixing.mT + 2, atol=2e-2)


def test_an_object_is_left_as_it_is(sentence_transformer):
    source = sentence_transformer("mean", 13).half().train()
    encoder = SentenceEncoder.open(source)
    inputs = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    encoder.embed(encoder.model(**inputs).last_hidden_state, inputs["attention_mask"])
    assert all(parameter.requires_grad and parameter.dtype == torch.half for parameter in source.parameters())
    assert all(module.training for module in source.modules())
