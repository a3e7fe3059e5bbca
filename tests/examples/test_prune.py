"""examples/prune.py as a user runs it: real processes, files on disk, no network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--rounds", "2", "--alpha-steps", "2", "--recovery-steps", "2", "--batch-size", "4", "--eval-examples", "8"]
LOGITS = """
import sys, torch
{imports}
from transformers import AutoModelForMaskedLM
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1]).eval()
ids = torch.arange(5, 21).reshape(2, 8)
with torch.no_grad():
    torch.save(model(input_ids=ids).logits, sys.argv[2])
"""


LAUNCH = ["-m", "accelerate.commands.launch"]
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def prune(*arguments: object, by: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(by or []), "examples/prune.py"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.mark.slow
def test_a_pruned_bert_opens_in_a_new_process_with_the_same_logits(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--max-length", 24]
    run = prune(*sources, "--target", "0.7", "--output-dir", output, *QUICK, by=LAUNCH)
    assert run.returncode == 0, run.stderr
    assert "Widths, layer by layer" in run.stdout
    assert "Load it with" in run.stdout

    record = json.loads((output / "pruning.json").read_text())
    config = json.loads((output / "config.json").read_text())
    assert record["size"] <= 0.7 * record["source_size"]
    assert config["hidden_sizes"] == record["rounds"][-1]["shape"]["hidden_sizes"]
    assert len(list((output / "checkpoints").glob("round-*"))) == 2

    logits = []
    for number in range(2):
        script, result = LOGITS.format(imports="import schubert_hf"), tmp_path / f"logits{number}.pt"
        subprocess.run([sys.executable, "-c", script, output, result], cwd=tmp_path, check=True)
        logits.append(torch.load(result, weights_only=True))
    from schubert_hf import SchuBertForMaskedLM

    model = SchuBertForMaskedLM.from_pretrained(output).eval()
    with torch.no_grad():
        own = model(input_ids=torch.arange(5, 21).reshape(2, 8)).logits
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits[0], own, rtol=0, atol=1e-6)

    (output / "README.md").unlink()  # as if it had been killed while it wrote the page
    again = prune(*sources, "--output-dir", output, "--resume", *QUICK)
    assert "parameters**, pruned from" in (output / "README.md").read_text()
    assert again.returncode != 0
    assert "already holds a model" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_two_processes_make_one_run(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--max-length", 24]
    run = prune(*sources, "--target", "0.7", "--output-dir", output, *QUICK, by=TWO_PROCESSES)
    # A finished gloo run sometimes aborts at interpreter exit: what it wrote counts, beside its code.
    assert (output / "config.json").exists(), run.stderr
    assert json.loads((output / "pruning.json").read_text())["provenance"]["processes"] == 2
    assert run.stdout.count("Widths, layer by layer") == 1


@pytest.mark.slow
def test_several_sizes_from_a_stream_each_with_a_page(bert, text, tmp_path) -> None:
    output = tmp_path / "pruned"
    sources = ["--model", bert, "--text", text, "--eval-text", text, "--max-length", 24, "--streaming"]
    run = prune(*sources, "--target", "80%,70%", "--output-dir", output, *QUICK)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Widths, layer by layer") == 2
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
    command = [sys.executable, "examples/prune.py", "--model", bert, "--text", text, "--max-length", 24]
    command += ["--output-dir", output, *QUICK, "--recovery-steps", 100, "--save-steps", 20, "--report-to", "none"]
    run = subprocess.Popen(
        [*map(str, command)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while run.poll() is None and not list((output / "checkpoints").glob("round-000-recovery-*20")):
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143, errors[-2000:]
    assert "stopped by SIGTERM. Resume it with --resume." in errors
    assert "Traceback" not in errors
    again = prune(*command[2:], "--resume")
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
