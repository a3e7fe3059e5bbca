"""Which examples a job reads: those that the model was pretrained on."""

import pytest
from transformers import BertForMaskedLM, BertForPreTraining

from schubert_hf import PruningConfig, evaluate_model
from schubert_hf.front.arguments import PruneArguments
from schubert_hf.front.jobs import open_job

LENGTH = 32


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [BertForPreTraining, BertForMaskedLM])
def test_only_a_model_with_a_next_sentence_head_reads_pairs(kind, streaming, bert_config, corpus, tokenizer, tmp_path):
    kind(bert_config(vocab_size=len(tokenizer), max_position_embeddings=LENGTH)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(corpus))
    arguments = PruneArguments(
        model=str(tmp_path), text=str(text), eval_text=str(text), streaming=streaming, max_length=LENGTH
    )
    job = open_job(arguments, PruningConfig(eval_examples=8))
    ends = [list(example["input_ids"]).count(tokenizer.sep_token_id) for example in (job.train[0], *job.held_out)]
    pairs = kind is BertForPreTraining
    assert set(ends) == {2 if pairs else 1}
    assert ("next_sentence_label" in job.held_out.column_names) == pairs

    measured = evaluate_model(job.model, dataset=text, tokenizer=tokenizer, max_length=LENGTH, scored_examples=2)
    again = evaluate_model(job.model, dataset=job.held_out, tokenizer=tokenizer, scored_examples=2)
    assert (measured.next_sentence_loss is not None) == (again.next_sentence_loss is not None) == pairs
