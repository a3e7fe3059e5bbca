import pytest
import torch
from starts import initialize_local_attention, stack_layers

from schubert_hf import SchuBertConfig, SchuBertForPreTraining


def test_each_head_of_the_first_layer_prefers_its_own_offset() -> None:
    torch.manual_seed(0)
    config = SchuBertConfig(
        vocab_size=999,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.06,
        attn_implementation="eager",
    )
    model = SchuBertForPreTraining(config).eval()
    initialize_local_attention(model)
    ids = torch.randint(999, (64, 64))
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions[0].mean(0)  # (heads, seq, seq)
    for head, offset in enumerate((-1, 1, -2, 2)):
        # Away from the edges, where the position that a head looks for may not exist.
        means = {shift: attentions[head].diagonal(shift)[8:-8].mean().item() for shift in range(-6, 7)}
        assert max(means, key=means.__getitem__) == offset
        assert means[offset] > 5 / 64


def test_heads_too_small_for_a_rotation_are_left_as_they_are() -> None:
    config = SchuBertConfig(
        vocab_size=99, hidden_size=5, num_hidden_layers=1, num_attention_heads=5, intermediate_size=7
    )
    model = SchuBertForPreTraining(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialize_local_attention(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


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
