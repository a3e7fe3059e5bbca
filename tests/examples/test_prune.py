"""examples/prune.py as a user runs it: real processes and launchers, files on disk, no network."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import Fork, run

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--rounds", "2", "--alpha-steps", "2", "--recovery-steps", "2", "--batch-size", "4", "--eval-examples", "8"]
LOGITS = """
import sys, torch
import schubert_hf
from transformers import AutoModelForMaskedLM
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1]).eval()
ids = torch.arange(5, 21).reshape(2, 8)
with torch.no_grad():
    torch.save(model(input_ids=ids).logits, sys.argv[2])
"""


SCRIPT = "examples/prune.py"
LAUNCH = ["-m", "accelerate.commands.launch"]
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launch(*arguments: object, by: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *by, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.slow
def test_a_pruned_bert_opens_in_a_new_process_with_the_same_logits(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--max-length", 24]
    done = launch(*sources, "--target", "0.7", "--output-dir", output, *QUICK, by=LAUNCH)
    assert done.returncode == 0, done.stderr
    assert "Widths, layer by layer" in done.stdout
    assert "Load it with" in done.stdout

    record = json.loads((output / "pruning.json").read_text())
    config = json.loads((output / "config.json").read_text())
    assert record["size"] <= 0.7 * record["source_size"]
    assert config["hidden_sizes"] == record["rounds"][-1]["shape"]["hidden_sizes"]
    assert len(list((output / "checkpoints").glob("round-*"))) == 2

    subprocess.run([sys.executable, "-c", LOGITS, output, tmp_path / "logits.pt"], cwd=tmp_path, check=True)
    from schubert_hf import SchuBertForMaskedLM

    model = SchuBertForMaskedLM.from_pretrained(output).eval()
    with torch.no_grad():
        own = model(input_ids=torch.arange(5, 21).reshape(2, 8)).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt", weights_only=True), own, rtol=0, atol=1e-6)

    (output / "README.md").unlink()  # as if it had been killed while it wrote the page
    again = run(SCRIPT, *sources, "--output-dir", output, "--resume", *QUICK, cwd=ROOT)
    assert "parameters**, pruned from" in (output / "README.md").read_text()
    assert again.returncode != 0
    assert "already holds a model" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_two_processes_make_one_run(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--max-length", 24]
    done = launch(*sources, "--target", "0.7", "--output-dir", output, *QUICK, by=TWO_PROCESSES)
    # A finished gloo run sometimes aborts at interpreter exit: what it wrote counts, beside its code.
    assert (output / "config.json").exists(), done.stderr
    assert json.loads((output / "pruning.json").read_text())["provenance"]["processes"] == 2
    assert done.stdout.count("Widths, layer by layer") == 1


@pytest.mark.slow
def test_several_sizes_from_a_stream_each_with_a_page(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--eval-text", text, "--max-length", 24, "--streaming"]
    done = run(SCRIPT, *sources, "--target", "80%,70%", "--output-dir", output, *QUICK, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Widths, layer by layer") == 2
    for number, name in ((2, "80pct"), (4, "70pct")):
        record = json.loads((output / name / "pruning.json").read_text())
        assert len(record["rounds"]) == number
        assert f"{record['size'] / 1e3:.1f}"[:2] in (output / name / "README.md").read_text()
        assert (output / name / "pictures" / "widths.png").stat().st_size > 1000
    events = list((output / "logs").rglob("events.out.tfevents.*"))
    assert max(path.stat().st_size for path in events) > 1000


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_a_clean_exit(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    command = [SCRIPT, "--model", bert, "--text", text, "--max-length", 24, "--output-dir", output, *QUICK]
    command += ["--recovery-steps", 100, "--save-steps", 20, "--report-to", "none"]
    started = Fork(*command, cwd=ROOT)
    while started.poll() is None and not list((output / "checkpoints").glob("round-000-recovery-*20")):
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    code, _, errors = started.end()
    assert code == 143, errors[-2000:]
    assert "stopped by SIGTERM. Resume it with --resume." in errors
    assert "Traceback" not in errors
    again = run(*command, "--resume", cwd=ROOT)
    assert again.returncode == 0, again.stderr[-2000:]
    record = json.loads((output / "pruning.json").read_text())
    assert len(record["rounds"]) == 2
    assert not (output / "logs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "70%,80%"], "where '80%' is not below '70%'"),
        (["--report-to", "papyrus"], "`report_to` names 'papyrus'; allowed are none, "),
        (["--report-to", "wandb"], "`report_to` names 'wandb', which is not installed"),
        (["--target", "900M"], "less than the model's own"),
        (["--target", "1"], "less than the model's own"),
        (["--target", "0.01"], "the smallest that removing"),
        (["--target", "many"], "give a size like"),
        (["--dimensions", "hx"], "one or more of h (hidden)"),
        (["--rounds", "0"], "`rounds` is 0"),
        (["--multiple-of", "h=0"], "`multiple_of` is"),
        (["--text", "nowhere.txt"], "does not exist"),
        (["--text", "LICENSE.empty"], "empty"),
        (["--model", "."], "folder holds no config.json"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(arguments, words, bert, text, tmp_path, monkeypatch) -> None:
    (tmp_path / "LICENSE.empty").touch()
    monkeypatch.chdir(tmp_path)
    given = {"--model": str(bert), "--text": str(text), "--output-dir": str(tmp_path / "out")}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    words_given = [word for pair in given.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["prune.py", *words_given, "--max-length", "24"])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import prune as example

    with pytest.raises(SystemExit) as exit_:
        example.main()
    assert words in str(exit_.value)
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "checkpoints").exists()
