"""`schubert inspect`: the shape and size of a model, in the terminal, as JSON or as a picture."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from ..cli import positional
from ..hub.errors import InspectError
from ..training.loop_config import option


@dataclass
class Inspect:
    """Print widths per layer, parameters and FLOPs by part, and what was removed from the base model."""

    model: str = positional('A folder, a name on the Hub, or a preset such as "schubert-66m".')
    base: str | None = option(None, "Model to compare with. Default: the one that the model was pruned from.")
    revision: str | None = option(None, "Commit, branch or tag on the Hub.")
    json: bool = option(False, "Print JSON.")
    plot: str | None = option(None, "Plot the widths to this file: .png, .svg or .pdf.")

    def run(self) -> None:
        from ..hub.inspection import inspect

        inspection = inspect(self.model, base=self.base, revision=self.revision)
        if self.plot is not None:
            from ..hub.pictures import draw_widths

            try:
                draw_widths(inspection.shape, Path(self.plot), inspection.base)
            except (OSError, ValueError) as error:
                raise InspectError(
                    f"`{self.plot}` cannot be drawn: {error}. Give a file that ends in .png, .svg or .pdf."
                ) from error
        if self.json:
            sys.stdout.write(json.dumps(inspection.to_json(), indent=2) + "\n")
        else:
            from ..report import print_inspection

            print_inspection(inspection)
