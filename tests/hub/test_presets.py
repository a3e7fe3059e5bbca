import pytest

from schubert_hf import SchuBertConfig, SchuBertConfigError
from schubert_hf.hub.presets import DESCRIPTIONS, render_preset
from schubert_hf.presets import PRESETS

# PAPER.md, section 6: millions of parameters with and without the pooler.
COUNTS = {
    "bert-base": (109.48, 108.89),
    "schubert-99m": (98.90, 98.30),
    "schubert-88m": (88.48, 87.91),
    "schubert-77m": (77.45, 77.15),
    "schubert-66m": (66.32, 66.10),
    "schubert-55m": (55.48, 55.33),
    "schubert-43m": (43.23, 43.14),
    "schubert-33m": (33.28, 33.22),
}


@pytest.mark.parametrize(("name", "millions"), COUNTS.items(), ids=COUNTS)
def test_parameters_are_those_of_the_table(name, millions):
    config = SchuBertConfig.from_preset(name)
    counts = config.num_parameters() / 1e6, config.num_parameters(add_pooling_layer=False) / 1e6
    assert tuple(round(count, 2) for count in counts) == millions


@pytest.mark.parametrize(("layers", "millions"), [(9, (88.22, 87.63)), (6, (66.96, 66.36)), (3, (45.69, 45.10))])
def test_fewer_layers(layers, millions):
    config = SchuBertConfig(num_hidden_layers=layers)
    counts = config.num_parameters() / 1e6, config.num_parameters(add_pooling_layer=False) / 1e6
    assert tuple(round(count, 2) for count in counts) == millions


def test_every_preset_is_described_with_its_parameters():
    assert list(PRESETS) == list(COUNTS) == list(DESCRIPTIONS)
    assert "**55.48M parameters**, 50.7% of BERT-base. schuBERT-h: h 390" in render_preset("schubert-55m")


def test_attention_stays_expansive():
    config = SchuBertConfig.from_preset("schubert-33m")
    assert config.key_query_sizes == config.value_sizes == [64] * 12
    assert SchuBertConfig.from_preset("bert-base") == SchuBertConfig()


def test_overrides_and_copies():
    config = SchuBertConfig.from_preset("schubert-99m", vocab_size=99, num_labels=3)
    config.filter_sizes[0] = 1
    assert (config.vocab_size, config.num_labels) == (99, 3)
    assert SchuBertConfig.from_preset("schubert-99m").filter_sizes[0] == 2022


def test_unknown_name():
    with pytest.raises(SchuBertConfigError, match=r"'schubert-1m'.*bert-base, schubert-99m"):
        SchuBertConfig.from_preset("schubert-1m")
