"""Predictions: what the model says of each example alone, in the set's order, from one process and from two."""

import json

import pytest
import torch
from forks import run

# Run as one process and as two. Seven examples of different lengths, so that the shares differ, too.
SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from schubert_hf import SchuBertConfig, SchuBertForQuestionAnswering, SchuBertForSequenceClassification
from schubert_hf.evaluation.objectives import ClassificationObjective, QuestionAnsweringObjective
from schubert_hf.training.evaluate import predict

def collate(rows):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}

examples = [{"input_ids": list(range(5, 9 + length))} for length in range(7)]
config = lambda **fields: SchuBertConfig(
    hidden_sizes=[12, 10], filter_sizes=[14, 18], head_counts=[3, 2], key_query_sizes=[5, 4], value_sizes=[3, 6],
    vocab_size=40, max_position_embeddings=16, **fields)
accelerator = Accelerator(cpu=True)
report = {"processes": accelerator.num_processes}
for head, objective, fields in (
    (SchuBertForSequenceClassification, ClassificationObjective, {"num_labels": 3}),
    (SchuBertForQuestionAnswering, QuestionAnsweringObjective, {}),
):
    torch.manual_seed(0)
    made = objective(head(config(**fields))).train()
    found = predict(accelerator, made, examples, collate, batch_size=2)
    assert made.training
    for term, rows in found.items():
        report[term] = [row.tolist() for row in rows]
    made.eval()
    for number, example in enumerate(examples):
        alone = made.predict(collate([example])).logits
        for term, logits in alone.items():
            torch.testing.assert_close(found[term][number][: logits.shape[-1]], logits[0].detach())
with open(f"{sys.argv[1]}.{accelerator.process_index}", "w") as stream:
    json.dump(report, stream)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_each_example_is_predicted_as_if_alone(tmp_path, processes):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = run(script, tmp_path / "out", processes=processes)
    reports = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("out.*"))]
    assert [report["processes"] for report in reports] == [processes] * processes, ended.stderr[-3000:]
    assert all(report == reports[0] for report in reports)
    assert [len(reports[0][term]) for term in ("classification", "start", "end")] == [7, 7, 7]


def test_no_batch_is_made_of_nothing(tmp_path):
    """A process without a share of its own still takes part."""
    from accelerate import Accelerator

    from schubert_hf import SchuBertConfig, SchuBertForSequenceClassification
    from schubert_hf.evaluation.objectives import ClassificationObjective
    from schubert_hf.training.evaluate import predict

    model = SchuBertForSequenceClassification(SchuBertConfig(hidden_size=12, num_attention_heads=2, vocab_size=40))
    objective = ClassificationObjective(model)
    assert predict(Accelerator(cpu=True), objective, [], torch.stack, batch_size=2) == {"classification": []}
