"""Exports a model to ONNX or OpenVINO in float32 and int8, and checks both.

    pip install "schubert-hf[export]" && python examples/export.py

Without arguments: the included English BERT. Of a pruned model, such as the result of examples/prune.py, whose page
(pruned/README.md) then shows how to use each file:

    python examples/export.py --model pruned
    python examples/export.py --model pruned --format openvino --text corpus.txt

The float32 export is compared with PyTorch on 20 batches of different shapes and is an error if it differs; int8 is
compared with float32 on text that it was not calibrated on. The output is at the end of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schubert_hf.cli import parse
from schubert_hf.commands.export import run
from schubert_hf.errors import one_line_errors
from schubert_hf.training.loop_config import option

DEFAULT = Path(__file__).parent / "default"


@dataclass
class Arguments:
    """What is exported, and where to."""

    model: str = option(str(DEFAULT / "model"), "Folder of a model, of a sentence encoder or of a cross-encoder.")
    format: str = option("onnx", "onnx or openvino.")
    text: str = option(str(DEFAULT / "text" / "valid.txt"), "Text that int8 is calibrated and compared on.")
    int8: bool = option(True, "Make an int8 export, too.")
    output: str | None = option(
        None,
        "Folder for files, config and tokenizer. Default: the model's own; for the included one, exported.",
    )


def main() -> None:
    (arguments,) = parse(str(__doc__), Arguments)
    output = arguments.output or ("exported" if arguments.model == str(DEFAULT / "model") else None)
    with one_line_errors():
        run(arguments.model, arguments.format, int8=arguments.int8, text=arguments.text, output=output)


if __name__ == "__main__":
    main()

# onnx/model.onnx: 21.1 MB, input_ids, attention_mask, token_type_ids -> logits, seq_relationship_logits
#   largest difference from PyTorch on 20 batches: 3.3e-05 (outputs up to 24.4)
# onnx/model_quantized.onnx: 5.5 MB, input_ids, attention_mask, token_type_ids -> logits, seq_relationship_logits
#   int8: weights per channel, activations as they come (ONNX Runtime, dynamic)
#   next to float32, on 128 texts: logits 0.9915, seq relationship logits 0.9844
