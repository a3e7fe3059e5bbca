"""`schubert card`: the model card of a folder, rendered from the data in the folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..cli import positional
from ..hub.errors import PublishError, RecordError
from ..training.loop_config import option


@dataclass
class Card:
    """Render the model card of a folder from its data: README.md, pictures and .eval_results."""

    folder: str = positional("Folder of a model.")
    name: str | None = option(None, "Name of the model on the card. Default: the folder's name.")
    license: str | None = option(None, "Identifier on the Hub. Default: the base model's, where known.")
    latency: bool = option(True, "Measure the latency if the folder has no latency.json.")
    results: list[str] = field(
        default_factory=list,
        metadata={"help": "Results to show: results.json of the evaluation scripts, or their folders."},
    )
    base_results: list[str] = field(
        default_factory=list, metadata={"help": "Results of the dense model, shown beside them."}
    )
    overwrite_readme: bool = option(False, "Replace a model card that was written by hand.")

    def run(self) -> None:
        from ..hub.evaluations import add_results
        from ..hub.staging import check_model_type
        from ..hub.writing import README, handwritten_page, write_page

        folder = Path(self.folder)
        if self.base_results and not self.results:
            raise RecordError("`base_results` is given without `results`. Give both.")
        check_model_type(folder)
        if not self.overwrite_readme and handwritten_page(folder) is not None:
            raise PublishError(f"`{folder / README}` was written by hand. Replace it with --overwrite-readme.")
        if self.results:
            add_results(folder, [Path(path) for path in self.results], [Path(path) for path in self.base_results])
        write_page(folder, self.name, license=self.license, latency=self.latency)
        sys.stdout.write(f"Wrote {folder / README}\n")
