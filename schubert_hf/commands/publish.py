"""`schubert publish`: a pruned model on the Hub, with its model card and the code that loads it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ..cli import positional
from ..training.loop_config import option


@dataclass
class Publish:
    """Upload a folder to the Hub in one commit, with a generated model card and the files that load it anywhere."""

    folder: str = positional("Folder of a pruned model.")
    name: str = positional('"organisation/name" on the Hub.')
    private: bool = option(False, "Make the repository private.")
    overwrite_readme: bool = option(False, "Replace a model card that was written by hand.")
    license: str | None = option(
        None, 'Identifier on the Hub, e.g. "apache-2.0". Default: the base model\'s, where known.'
    )
    latency: bool = option(True, "Measure the latency for the model card.")
    message: str = option("Publish with schubert_hf", "Title of the commit.")

    def run(self) -> None:
        from ..hub.publishing import publish

        published = publish(
            self.folder,
            self.name,
            private=self.private or None,
            overwrite_readme=self.overwrite_readme,
            license=self.license,
            latency=self.latency,
            commit_message=self.message,
        )
        print_published(published)


def print_published(published: Any) -> None:
    """Prints where a model was published and how to load it."""
    lines = [f"Published {len(published.files)} files: {published.url}"]
    if published.kept_readme:
        lines.append("Its README.md was written by hand and is kept; --overwrite-readme replaces it.")
    load = f'"{published.repo_id}", revision="{published.commit}", trust_remote_code=True'
    how = f"{published.opener}.from_pretrained" if published.opener.startswith("Auto") else published.opener
    sys.stdout.write("\n".join([*lines, f"    {how}({load})", ""]))
