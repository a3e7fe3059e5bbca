"""`schubert bench`: time and memory of checkpoints side by side."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..bench.errors import BenchError
from ..cli import positional
from ..training.loop_config import check_ranges, option


@dataclass
class Bench:
    """Time one or several models side by side: dense and pruned, in PyTorch and as exported files.

        schubert bench sentence-transformers/all-MiniLM-L6-v2 small --batch-size 1 32 --seq-len 16 128

    Models take turns at each batch size and length, so that other load on the machine affects all of them alike. A
    forward pass is that of the saved class, with its head, on random tokens without padding.
    """

    models: list[str] = positional("Folders, or names on the Hub, of any family that transformers knows.")
    backends: list[str] | None = option(
        None,
        "What runs them: torch, compiled, onnx, onnx-int8, openvino, openvino-int8. Default: torch, and every "
        "exported file that a model has and whose package is installed.",
    )
    batch_size: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "Sequences per batch; several are allowed."}
    )
    seq_len: list[int] = field(
        default_factory=lambda: [128], metadata={"help": "Tokens per sequence; several are allowed."}
    )
    dtype: str = option("float32", "Type of the weights in PyTorch: float32, bfloat16 or float16.")
    device: str = option("cpu", "Device for PyTorch; exported files run on the CPU.")
    threads: int | None = option(None, "CPU threads. Default: PyTorch's.", least=1)
    rounds: int = option(20, "Turns per model, each with two timed passes.")
    seconds: float = option(20.0, "Time for each batch size and length, roughly.")
    processor_time: bool = option(
        False, "Count the time that processors work on it, not the clock's: on a busy machine, with --threads 1."
    )
    memory: bool = option(True, "Also measure the peak memory, each in a process of its own.")
    json: str | None = option(None, "Write everything to this file, as JSON.")
    picture: str | None = option(
        None, "Plot quality against milliseconds to this file (.png, .svg or .pdf), where records know qualities."
    )

    usage: ClassVar[str] = "schubert bench MODEL... [--backends B...] [--batch-size N...] [--seq-len N...]"

    def run(self) -> None:
        import torch

        from ..bench.comparing import compare
        from ..bench.picture import check_picture, draw
        from ..report import print_comparison
        from ..run.network import hub_asked_once

        check_ranges(self, BenchError)
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if self.dtype not in dtypes:
            raise BenchError(f"`dtype` is {self.dtype!r}. Allowed are {', '.join(dtypes)}.")
        for path in filter(None, [self.json, self.picture]):
            if not Path(path).absolute().parent.is_dir():
                raise BenchError(f"`{path}`: there is no such folder. Make it, or give another file.")
            if Path(path).is_dir():
                raise BenchError(f"`{path}` is a folder. Give a file.")
        if self.picture is not None:
            check_picture(Path(self.picture), self.models)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # which of them differs between builds of PyTorch
            raise BenchError(
                f"`device` is {self.device!r}, which PyTorch cannot use here: {str(error).splitlines()[0]}. Give "
                "`--device cpu`, or install a PyTorch built for the device."
            ) from error
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with hub_asked_once(*self.models):
            comparison = compare(
                self.models,
                backends=self.backends,
                batch_sizes=self.batch_size,
                seq_lens=self.seq_len,
                device=self.device,
                dtype=dtypes[self.dtype],
                rounds=self.rounds,
                seconds=self.seconds,
                memory=self.memory,
                progress=True,
                **({"clock": time.process_time} if self.processor_time else {}),
            )
        if self.json is not None:
            Path(self.json).write_text(json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8")
        if self.picture is not None:
            draw(comparison, Path(self.picture))
        print_comparison(comparison)
