"""`schubert_hf.trim` and `schubert trim`: every family, any head, and encoders; encoded as before, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from relatives import CONFIGS, PREFIX, build, tokenizer_of
from sentence_transformers import CrossEncoder, SentenceTransformer
from strangers import run_clean
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

import schubert_hf
from schubert_hf.commands import main
from schubert_hf.front.arguments import SettingError
from schubert_hf.hub.inspection import inspect
from schubert_hf.hub.staging import stage
from schubert_hf.run.output import OutputFolderError
from schubert_hf.vocabulary.pieces import TrimError
from schubert_hf.vocabulary.selection import Selection
from schubert_hf.vocabulary.trimming import trim_model

HUB = Path(__file__).parents[1] / "hub"
ENDINGS = ("Model", "ForMaskedLM", "ForSequenceClassification")


@pytest.fixture(scope="module")
def checkpoint(corpus, tmp_path_factory):
    """Save a tiny checkpoint of a family, with more embeddings than its tokenizer has words."""
    tokenizers = {family: tokenizer_of(family, corpus) for family in CONFIGS}

    def save(family, ending):
        folder = tmp_path_factory.mktemp(family)
        model = build(family, PREFIX[family] + ending, vocab_size=len(tokenizers[family]) + 7)
        model.save_pretrained(folder)
        tokenizers[family].save_pretrained(folder)
        return folder, model, tokenizers[family]

    return save


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("family", CONFIGS)
def test_texts_of_words_that_stay_are_encoded_as_before(family, ending, checkpoint, corpus, tmp_path):
    folder, dense, tokenizer = checkpoint(family, ending)
    texts = [*corpus[:5], *(text[:40] for text in corpus[5:8])]
    result = schubert_hf.trim(str(folder), "100%", text=texts, output_dir=tmp_path / "small")
    before, after = result.facts["words"]
    assert after < before == len(tokenizer)
    opened, own = schubert_hf.load(tmp_path / "small").eval(), AutoTokenizer.from_pretrained(tmp_path / "small")
    assert own.get_vocab() == result.tokenizer.get_vocab()
    assert (len(own), type(own)) == (opened.config.vocab_size, type(tokenizer))
    ours = schubert_hf.convert_bert(dense).eval()
    settings = {"padding": True, "truncation": True, "max_length": 20, "return_tensors": "pt"}
    given, small = tokenizer(texts, **settings), own(texts, **settings)
    assert given["input_ids"].shape == small["input_ids"].shape
    assert [tokenizer.convert_ids_to_tokens(row) for row in given["input_ids"]] == [
        own.convert_ids_to_tokens(row) for row in small["input_ids"]
    ]
    with torch.no_grad():
        states = [
            model.base_model(**one, output_hidden_states=True) for model, one in ((ours, given), (opened, small))
        ]
        assert all(torch.equal(*pair) for pair in zip(*(one.hidden_states for one in states), strict=True))
        if ending != "Model":
            logits, less = ours(**given).logits, opened(**small).logits
            kept = sorted(tokenizer.get_vocab()[word] for word in own.get_vocab())
            torch.testing.assert_close(less, logits[..., kept] if ending == "ForMaskedLM" else logits)
    assert result.facts["parameters"][0] - result.facts["parameters"][1] == sum(
        parameter.numel() for parameter in ours.parameters()
    ) - sum(parameter.numel() for parameter in opened.parameters())


def test_only_rows_are_cut_where_embeddings_have_a_width_of_their_own(corpus, tokenizer):
    dense = build("electra", "ElectraForMaskedLM", vocab_size=len(tokenizer), embedding_size=20)
    texts = [text[:40] for text in corpus[:3]]
    result = schubert_hf.trim(dense, "100%", text=texts, tokenizer=tokenizer)
    assert result.model.config.embedding_size == 20
    assert result.model.get_input_embeddings().weight.shape == (len(result.tokenizer), 20)
    ours, settings = schubert_hf.convert_bert(dense).eval(), {"padding": True, "return_tensors": "pt"}
    kept = sorted(tokenizer.get_vocab()[word] for word in result.tokenizer.get_vocab())
    with torch.no_grad():
        logits, less = (
            ours(**tokenizer(texts, **settings)).logits,
            result.model(**result.tokenizer(texts, **settings)).logits,
        )
    torch.testing.assert_close(less, logits[..., kept])


def test_ids_move_along_in_the_config(tmp_path):
    """Special words that stand last, where words before them go."""
    words = ["cat", "dog", *"abc", *(f"##{letter}" for letter in "abc"), "ab", "##bc", "[UNK]", "[PAD]", "[E]"]
    raw = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=9,
        pad_token_id=11,
        bos_token_id=12,
        eos_token_id=[12, 19],
        decoder_start_token_id=19,
    )
    model = BertForMaskedLM(config).eval()
    given = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = schubert_hf.trim(model, ["ab"], tokenizer=tokenizer)
    assert result.model.config.auto_map == schubert_hf.auto_map()  # so `save_pretrained` adds what opens it anywhere
    left = [
        word
        for word in words
        if word in ("ab", "[UNK]", "[PAD]", "[E]") or len(word.removeprefix("##")) == 1 or word in ("cat", "dog")
    ]
    assert sorted(result.tokenizer.get_vocab(), key=result.tokenizer.get_vocab().get) == left  # `t` is no word
    assert "##bc" not in left
    small = result.model
    assert (small.config.pad_token_id, small.config.bos_token_id) == (left.index("[PAD]"), left.index("[E]"))
    assert (small.config.eos_token_id, small.config.decoder_start_token_id) == ([left.index("[E]")], None)
    assert small.config.vocab_size == len(left)
    table = model.get_input_embeddings().weight
    for word, number in result.tokenizer.get_vocab().items():
        assert torch.equal(small.get_input_embeddings().weight[number], table[words.index(word)])
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
    assert small.get_input_embeddings().padding_idx == left.index("[PAD]")
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())
    assert result.facts["rows"] == [20, len(left)]
    untied = BertForMaskedLM(BertConfig(**{**config.to_dict(), "tie_word_embeddings": False})).eval()
    cut = schubert_hf.trim(untied, ["ab"], tokenizer=tokenizer).model
    ids = torch.tensor([[2, 8]])
    small_ids = torch.tensor([[left.index(words[one]) for one in ids[0]]])
    kept = [words.index(word) for word in left]
    torch.testing.assert_close(cut(small_ids).logits, untied(ids).logits[..., kept])


def test_a_sentence_encoder_keeps_its_modules_and_prompts(corpus, tmp_path, tokenizer):
    dense = _encoder(tmp_path / "bert", tokenizer)
    dense.save_pretrained(str(tmp_path / "dense"))
    texts = [text[:50] for text in corpus[:4]]
    result = schubert_hf.trim(tmp_path / "dense", "100%", text=texts, output_dir=tmp_path / "small")
    assert result.facts["words"][1] < result.facts["words"][0]
    opened = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    for one in (opened, result.package.model):
        assert (one.encode(texts) == dense.encode(texts)).all()
        assert (one.encode(texts, prompt_name="query") == dense.encode(texts, prompt_name="query")).all()
        assert [type(module) for module in one] == [type(module) for module in dense]
        assert (one.prompts, one.max_seq_length) == (dense.prompts, dense.max_seq_length)
    assert opened.model_card_data.model is opened
    assert result.package.model.model_card_data.model is result.package.model  # and holds no other's weights
    in_memory = schubert_hf.trim(dense, "100%", text=texts)
    assert dense.model_card_data.model is dense
    assert torch.equal(in_memory.model.get_input_embeddings().weight, result.model.get_input_embeddings().weight)
    assert dense.tokenizer.get_vocab() == tokenizer.get_vocab()
    record = json.loads((tmp_path / "small" / "trimming.json").read_text())
    assert record["provenance"]["vocabulary"]["words"] == result.facts["words"]
    page = (tmp_path / "small" / "README.md").read_text()
    assert "Trimmed from **{:,} to {:,} words**".format(*result.facts["words"]) in page
    found = inspect(tmp_path / "small")
    assert (found.dense.parameters.total, found.parameters.total) == tuple(result.facts["parameters"])
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "small", tmp_path / "staged", "org/small", latency=False)
    assert (tmp_path / "staged" / "trimming.json").exists()


def _encoder(folder, tokenizer):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    config = BertConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=27,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [Transformer(str(folder), max_seq_length=30), Pooling(20), Dense(20, 13), Normalize()]
    prompts = {"query": "the king at sea: ", "document": ""}
    return SentenceTransformer(modules=modules, device="cpu", prompts=prompts).eval()


def test_a_cross_encoder_keeps_its_scores(corpus, tmp_path, tokenizer):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=27,
        max_position_embeddings=32,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    CrossEncoder(str(tmp_path / "bert"), device="cpu", max_length=30).save_pretrained(str(tmp_path / "dense"))
    texts = [text[:50] for text in corpus[:4]]
    schubert_hf.trim(str(tmp_path / "dense"), "100%", text=texts, output_dir=tmp_path / "small")
    dense, small = (CrossEncoder(str(tmp_path / name), device="cpu") for name in ("dense", "small"))
    assert len(small.tokenizer) < len(dense.tokenizer)
    assert (small.predict([texts[:2], texts[2:]]) == dense.predict([texts[:2], texts[2:]])).all()


def test_texts_whose_words_always_stay(checkpoint):
    """A prompt is tokenized as before, whatever the text is: of BPE, the words in between stay, too."""
    _, model, tokenizer = checkpoint("roberta", "Model")
    prompt = "The captain remembers a sailor: "
    assert max(map(len, tokenizer.tokenize(prompt))) > 4
    asked = Selection.parse("0.01")
    for always in ([prompt], []):
        made = trim_model(schubert_hf.convert_bert(model), tokenizer, asked, texts=["x"], always=always)
        assert (made.tokenizer.tokenize(prompt) == tokenizer.tokenize(prompt)) == bool(always)


@pytest.fixture
def folder(checkpoint):
    return str(checkpoint("roberta", "Model")[0])


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (10, r"`vocabulary` is 10 words; allowed is at least 2\d\d"),
        ("100000", r"100,000 words; allowed is .* less than the tokenizer's own \d\d\d"),
        ("1.5", "above 0 % and at most 100 %"),
        ("0%", "above 0 % and at most 100 %"),
        ("101%", "above 0 % and at most 100 %"),
        (1.5, "above 0 % and at most 100 %"),
        (-0.5, "above 0 % and at most 100 %"),
        ("-3%", "above 0 % and at most 100 %"),
        (["Ġthe", "zyx", "qqq"], "names 2 words that the tokenizer does not have: `zyx`, `qqq`"),
        ("nothing.txt", "no number, no share .* and no file that can be read: No such file"),
        (True, "give a number of words"),
    ],
)
def test_what_cannot_be_asked_for(folder, corpus, tmp_path, vocabulary, message):
    with pytest.raises(TrimError, match=message):
        schubert_hf.trim(folder, vocabulary, text=corpus, output_dir=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_texts_and_folders_that_cannot_be_used(folder, corpus, tmp_path):
    with pytest.raises(SettingError, match="`text` is missing"):
        schubert_hf.trim(folder, "99%")
    with pytest.raises(schubert_hf.errors.SchuBertError, match=r"no text|empty"):
        schubert_hf.trim(folder, "99%", text=[""])
    (tmp_path / "config.json").touch()
    with pytest.raises(OutputFolderError, match="already holds a model"):
        schubert_hf.trim(folder, "99%", text=corpus, output_dir=tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(TrimError, match="an empty file"):
        schubert_hf.trim(folder, tmp_path / "empty.txt")


def test_the_command_prints_what_changes(folder, text_file, tmp_path, capsys, monkeypatch):
    keep = tmp_path / "keep.txt"
    keep.write_text("Ġthe\nĠking\n", encoding="utf-8")
    for vocabulary in ("280", "80%", str(keep)):
        output = tmp_path / f"small-{len(list(tmp_path.iterdir()))}"
        main(["trim", folder, "--vocabulary", vocabulary, "--text", str(text_file), "--output-dir", str(output)])
        shown = capsys.readouterr().out
        record = json.loads((output / "trimming.json").read_text())["provenance"]
        before, after = record["vocabulary"]["words"]
        assert f"Vocabulary: {before:,} -> {after:,} words" in shown
        assert "words cut otherwise" in shown
        assert "% kept" in shown
        assert f"--vocabulary {Path(vocabulary).name}" in record["command"]
        assert after <= 280 or vocabulary != "280"
    assert {"Ġthe", "Ġking"} <= set(AutoTokenizer.from_pretrained(output).get_vocab())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main(["trim", folder, "--vocabulary", "280", "--text", str(text_file), "--output-dir", "."])
    assert "\n# here\n" in Path("README.md").read_text()
    with pytest.raises(SystemExit, match="error: `model` and `vocabulary` are missing"):
        main(["trim"])


@pytest.mark.slow
def test_the_result_opens_in_a_clean_process(corpus, tmp_path, tokenizer):
    dense = _encoder(tmp_path / "bert", tokenizer)
    schubert_hf.trim(dense, "100%", text=[text[:50] for text in corpus], output_dir=tmp_path / "small")
    words = HUB / "open_encoder.py", f"SentenceTransformer={tmp_path / 'small'}"
    (line,) = run_clean(tmp_path / "elsewhere", *words, HF_HUB_OFFLINE="1")
    assert json.loads(line)[0] == dense.prompts
