"""A model that lies in the cache is opened with one request, whatever family it is of."""

import pytest
from relatives import build

from schubert_hf import convert_bert


@pytest.fixture(params=["roberta", "schubert"])
def repository(request, hub, tmp_path):
    model = build("roberta", "RobertaForMaskedLM")
    (model if request.param == "roberta" else convert_bert(model)).save_pretrained(tmp_path)
    hub.create("org/model", **{path.name: path.read_bytes() for path in tmp_path.iterdir()})
    return "org/model"


@pytest.mark.parametrize("how", ["load", "pretraining", "class"])
def test_config_and_weights_take_one_request(how, worker, repository, hub):
    for _ in range(2):
        hub.log.clear()
        assert worker("open_model", how, repository)["value"] == "SchuBertForMaskedLM"
    assert [(method, status) for method, _, status in hub.log] == [("HEAD", 200)]
