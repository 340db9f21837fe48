"""Every study of docs/studies runs, and the pages show what its numbers are."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from baselines_tf2.common.files import read_table
from baselines_tf2.report import figures
from baselines_tf2.runs import training
from baselines_tf2.sweeps.study import plan, read_study
from baselines_tf2.sweeps.study_page import BLOCK, fill
from baselines_tf2.sweeps.study_results import FIGURES
from baselines_tf2.sweeps.study_run import smoke
from run_experiments import EXPERIMENTS
from tests.tiny import tiny_world

DOCS = Path(__file__).parent.parent / "docs"
sys.path.append(str(DOCS))
from make_results import PAGES, read_stores

MAX_BYTES = 5_000_000  # of all CSVs


@pytest.mark.parametrize("path", sorted(DOCS.glob("studies/*.toml")), ids=lambda path: path.stem)
def test_a_study_runs(path, monkeypatch):
    pytest.importorskip("mujoco")
    pytest.importorskip("pybullet_envs_gymnasium")
    monkeypatch.setattr(training, "plot_run", lambda *_: None)  # pictures take as long as runs
    monkeypatch.setattr(figures, "LOOK", [*figures.LOOK, {"savefig.dpi": 30}])
    for kind in FIGURES.keys() - {"outcome"}:
        monkeypatch.delitem(FIGURES, kind)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    with tiny_world(eager=True):
        told = smoke(read_study(path), EXPERIMENTS)
    numbers = Path(told.split()[-1])
    rows = read_table(numbers)
    study = read_study(path)
    assert {row["part"] for row in rows} == set(study.parts)
    assert all(row["status"] == "finished" for row in rows)
    assert all(row[study.parts[row["part"]].primary] != "nan" for row in rows)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_pages_show_what_the_numbers_are():
    stores = read_stores()
    for page, prefix in PAGES.items():
        text, pictures = fill(page.read_text(), stores, prefix)
        assert text == page.read_text(), f"{page} is old: python docs/make_results.py"
        for picture in pictures:
            kept = Image.open(DOCS / "studies" / picture.name).text["Description"]
            assert kept == picture.digest, f"{picture.name} is old: python docs/make_results.py"


def test_rows_are_of_the_settings_that_the_files_have(tmp_path):
    for store in read_stores().values():
        assert not store.others(plan(store.study, EXPERIMENTS, str(tmp_path)))


def test_answers_have_no_number_that_is_written_by_hand():
    text = BLOCK.sub("", (DOCS / "results.md").read_text())
    answers = re.findall(r"\*\*Answer\.\*\*(.*?)\*\*What would change", text, re.DOTALL)
    assert len(answers) == text.count("**Question.**") == 4
    assert not [answer for answer in answers if re.search(r"(?<!\w)\d", answer)]


def test_the_numbers_are_small():
    assert sum(path.stat().st_size for path in DOCS.glob("studies/*.csv")) < MAX_BYTES
