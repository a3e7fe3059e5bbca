import inspect
import json
from dataclasses import dataclass, field, fields

import pytest

from schubert_hf import PruningConfig
from schubert_hf.cli import command_line, parse, positional, python_call
from schubert_hf.commands import COMMANDS, main
from schubert_hf.cost import BudgetError
from schubert_hf.errors import one_line_errors
from schubert_hf.front.arguments import GROUPS, PruneArguments


@dataclass
class Options:
    name: str = field(default="a", metadata={"help": "A name."})
    sizes: list[int] = field(default_factory=lambda: [1], metadata={"help": "Sizes."})
    fast: bool = field(default=False, metadata={"help": "Fast?"})
    limit: float | None = field(default=None, metadata={"help": "Limit."})


@dataclass
class Place:
    where: str = field(metadata={"help": "Where.", "positional": True})


def test_parse_gives_dataclasses():
    place, options = parse("", Place, Options, arguments=["here", "--sizes", "2", "3", "--fast", "--limit", "0.5"])
    assert (place, options) == (Place("here"), Options(sizes=[2, 3], fast=True, limit=0.5))


@pytest.mark.parametrize(
    "options", [Options(), Options(name="two words", sizes=[4, 5], fast=True, limit=1.5), Options(name="o'clock")]
)
def test_command_line_is_the_inverse_of_parse(options):
    import shlex

    words = shlex.split(command_line("script.py", options))
    assert words[0] == "script.py"
    assert parse("", Options, arguments=words[1:]) == (options,)


def test_command_line_tells_no_folders_and_no_defaults(tmp_path):
    assert command_line("x", Options(name=str(tmp_path / "model"))) == "x --name model"
    assert (
        command_line("x", PruningConfig(target="66M", multiple_of="h=16,k=4"))
        == "x --target 66M --multiple-of h=16,k=4"
    )
    assert command_line("x", PruningConfig()) == "x"


@dataclass
class OptionalPlace:
    where: str | None = positional("Where.", default=None)


def test_a_place_with_a_default_may_be_absent():
    import shlex

    for place in (OptionalPlace(), OptionalPlace("two words")):
        words = shlex.split(command_line("script.py", place, Options(fast=True)))
        assert words == ["script.py", *([place.where] if place.where else []), "--fast"]
        assert parse("", OptionalPlace, Options, arguments=words[1:]) == (place, Options(fast=True))


@dataclass
class Several:
    places: list[str] = positional("Where.")
    names: list[str] | None = field(default=None, metadata={"help": "Names."})


def test_several_places_and_lists_that_may_be_absent(capsys):
    assert parse("", Several, arguments=["a", "b", "--names", "c", "d"]) == (Several(["a", "b"], ["c", "d"]),)
    assert parse("", Several, arguments=["a"]) == (Several(["a"]),)
    with pytest.raises(SystemExit):
        parse("", Several, arguments=[])
    assert "places" in capsys.readouterr().err


def test_help_in_groups(capsys):
    example, groups = "A line that is wrapped.\n\n    an   example", {"speed": ("fast",), "rest": None}
    with pytest.raises(SystemExit):
        parse(example, Place, Options, arguments=["--help"], groups=groups, usage="x WHERE")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: x WHERE\n\nA line that is wrapped.\n\n    an   example\n")
    options, speed, rest = shown.index("options:"), shown.index("speed:"), shown.index("rest:")
    assert options < speed < shown.index("--fast") < rest < shown.index("where") < shown.index("--sizes")
    assert "(default: None)" not in shown
    assert "(default: a)" in shown


def test_the_headings_of_prune_name_settings_that_exist():
    known = {option.name for kind in (PruneArguments, PruningConfig) for option in fields(kind)}
    named = [name for names in GROUPS.values() for name in names or ()]
    assert len(named) == len(set(named))
    assert set(named) <= known
    assert {option.name for option in fields(PruneArguments)} <= set(named)


def test_a_call_as_python(tmp_path):
    given = {"text": tmp_path / "a.txt", "rounds": 2, "resume": True, "data": None, "tokenizer": object()}
    assert (
        python_call("prune", ("model", 'a "b"'), ("target", 0.5), **given)
        == r'prune("a \"b\"", 0.5, text="a.txt", rounds=2, resume=True, data=None, tokenizer=tokenizer)'
    )


def test_errors_of_bad_input_are_one_line(monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: too big$"), one_line_errors():
        raise BudgetError("too big")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as silent, one_line_errors():
        raise BudgetError("too big")
    assert silent.value.code == 1
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018


def test_inspect_a_preset(capsys, tmp_path):
    main(["inspect", "schubert-88m", "--plot", str(tmp_path / "widths.svg")])
    out = capsys.readouterr().out
    assert all(width in out for width in ("base", "3072", "1382"))
    assert "88.48M" in out
    assert "narrower in h, f, a, v" in out
    assert (tmp_path / "widths.svg").exists()
    main(["inspect", "schubert-66m", "--json", "--base", "schubert-99m"])
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == 66315266
    assert found["base"]["name"] == "schubert-99m"
    main(["inspect", "schubert-99m", "--base", "schubert-66m"])
    assert "Larger than schubert-66m: 149." in capsys.readouterr().out
    assert found["removed"]["hidden_sizes"] == round(1 - 466 / 768, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], r"`model` is missing\. Give a BERT.*schubert prune .* --target 60% --text corpus.txt"),
        (["prune", "bert"], r"`text` is missing.*--text corpus.txt"),
        (["prune", "bert", "--objective", "output"], "allowed is auto, pretraining, outputs, task"),
        (["prune", "bert", "--text", "x.txt", "--target", "many"], "no config.json|cannot be opened|give a size"),
        (["inspect", "a/b/c"], "no legal name"),
        (["inspect", "org/nothing"], "no connection to the Hub|HF_HUB_OFFLINE is set"),
        (["inspect", "schubert-66m", "--plot", "x.nothing"], "cannot be drawn"),
        (["publish", "nowhere", "org/x", "--no-latency"], r"is no folder|no token"),
        (["card", "nowhere"], "no config.json"),
    ],
)
def test_commands_say_what_is_wrong_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as end:
        main(arguments)
    assert str(end.value.code).startswith("error: ")
    assert "\n" not in str(end.value.code)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "./nowhere", "--text", "x.txt"], "there is no such folder. Check the path"),
        (["prune", "empty", "--text", "x.txt"], "holds no config.json. Give the folder that `save_pretrained` wrote"),
        (["prune", "damaged", "--text", "x.txt"], "weights are damaged .* again"),
        (["prune", "bert", "--text", "x.txt", "--target", "sixty"], "`target` is 'sixty'; give a size like"),
        (["trim", "bert"], "`vocabulary` is missing"),
        (["trim"], "`model` and `vocabulary` are missing"),
        (["bench", "damaged", "--device", "nothing"], "`device` is 'nothing'.*--device cpu"),
        (["bench", "damaged", "--no-memory", "--seq-len", "8"], "weights are damaged"),
        (["export", "damaged", "--output", "full"], "`full` already holds a model. Give another"),
    ],
)
def test_mistakes_of_newcomers(arguments, message, tmp_path, monkeypatch, ragged):
    from schubert_hf import SchuBertModel

    monkeypatch.chdir(tmp_path)
    for name in ("damaged", "full"):
        SchuBertModel(ragged()).save_pretrained(name)
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as end:
        main(arguments)
    assert "\n" not in str(end.value.code)


def test_an_option_that_does_not_exist(capsys):
    with pytest.raises(SystemExit) as end:
        main(["prune", "bert", "--txet", "corpus.txt"])
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: schubert prune MODEL")
    assert "no such option: --txet. Did you mean --text?" in shown


def test_a_group_lists_its_settings_in_its_order(capsys):
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    shown = capsys.readouterr().out
    assert shown.index("how much:") < shown.index("  --target TARGET") < shown.index("  --vocabulary VOCABULARY")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["usage: schubert", "prune", "inspect", "publish", "card"]),
        (
            ["prune", "--help"],
            0,
            ["usage: schubert prune MODEL", "\n    schubert prune google-bert/bert-base-uncased --target 60% --text"]
            + [f"\n{title}:\n" for title in ("what", "how much", "how", "long runs", "publishing")],
        ),
        (["--help"], 0, ["usage: schubert", "inspect", "publish", "card"]),
        (["nonsense"], 2, ["usage: schubert", "invalid choice: 'nonsense'"]),
        (["--version"], 0, ["schubert-hf", "torch", "transformers"]),
    ],
)
def test_help(arguments, code, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == code
    captured = capsys.readouterr()
    shown = captured.out if code == 0 else captured.err
    assert [word for word in words if word not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: schubert {name}")
    assert inspect.cleandoc(COMMANDS[name].__doc__).partition("\n")[0] in shown
    assert all(option.metadata["help"].split(". ")[0][:60] in shown for option in fields(COMMANDS[name]))
    assert "%%" not in shown


def test_the_console_script_is_main():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="schubert")
    assert script.load() is main


def test_card_of_a_folder(tmp_path, capsys, ragged):
    from schubert_hf import SchuBertForMaskedLM

    SchuBertForMaskedLM(ragged()).save_pretrained(tmp_path)
    main(["card", str(tmp_path), "--name", "org/x", "--no-latency"])
    page = tmp_path / "README.md"
    assert "# x" in page.read_text()
    page.write_text("# By hand")
    with pytest.raises(SystemExit, match="by hand"):
        main(["card", str(tmp_path)])
    main(["card", str(tmp_path), "--overwrite-readme", "--no-latency"])
    assert page.read_text() != "# By hand"
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SystemExit, match="holds a 'bert' model; allowed is 'schubert'"):
        main(["card", str(tmp_path), "--no-latency"])
