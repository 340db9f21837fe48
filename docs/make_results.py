"""Fills the studies' tables and figures into README.md and docs/results.md from their CSVs alone.

`python docs/make_results.py`, after a study's CSVs have changed.
"""

import sys
from pathlib import Path

from baselines_tf2.common.files import write_text
from baselines_tf2.sweeps.study import read_study
from baselines_tf2.sweeps.study_page import fill
from baselines_tf2.sweeps.study_store import Store
from envs.errors import ConfigError

DOCS = Path(__file__).parent
PAGES = {DOCS.parent / "README.md": "docs/studies/", DOCS / "results.md": "studies/"}


def read_stores(folder: Path = DOCS / "studies") -> dict[str, Store]:
    """Every study with its numbers, by name."""
    return {path.stem: Store(read_study(path)) for path in sorted(folder.glob("*.toml"))}


def main() -> None:
    stores = read_stores()
    for page, prefix in PAGES.items():
        text, pictures = fill(page.read_text(), stores, prefix)
        write_text(page, text)
        for picture in pictures:
            picture.draw(DOCS / "studies")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
