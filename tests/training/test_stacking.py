import pytest
import torch

from schubert_hf import SchuBertForPreTraining
from schubert_hf.training.stacking import stack_layers


def test_layers_repeat_and_everything_else_stays(ragged, randomised) -> None:
    shallow = randomised(SchuBertForPreTraining(ragged()))
    deep = stack_layers(shallow, 2)

    assert deep.config.hidden_sizes == [37, 31, 43, 37, 31, 43]
    assert deep.config.num_hidden_layers == 6
    assert deep.config.num_parameters("SchuBertForPreTraining") == deep.num_parameters()
    old, new = shallow.state_dict(), deep.state_dict()
    for name, tensor in new.items():
        head, _, rest = name.partition("encoder.layer.")
        if rest:
            layer, _, tail = rest.partition(".")
            name = f"{head}encoder.layer.{int(layer) % 3}.{tail}"
        assert torch.equal(tensor, old[name])
    assert deep.cls.predictions.decoder.weight is deep.bert.embeddings.word_embeddings.weight


def test_once_is_a_copy_and_nothing_is_shared(ragged, randomised) -> None:
    model = randomised(SchuBertForPreTraining(ragged()))
    same = stack_layers(model, 1)
    ids = torch.arange(22).reshape(2, 11)
    with torch.no_grad():
        assert torch.equal(model(ids).prediction_logits, same(ids).prediction_logits)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in same.parameters()}


def test_fewer_than_one_time_is_refused(ragged) -> None:
    with pytest.raises(ValueError, match="`times` is 0"):
        stack_layers(SchuBertForPreTraining(ragged()), 0)
