"""The report's page: what it finds, groups, says and refuses."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from baselines_tf2.report import figures as report_figures
from baselines_tf2.report import write as report_write
from baselines_tf2.report.runs import differing, find_runs, group_runs, read_run
from baselines_tf2.report.write import write_report
from baselines_tf2.runs.logger import CsvTable
from envs import ConfigError

ENSEMBLE = "torso_mass:6,1.5,3,9"
VERSIONS = {"python": "3.11", "numpy": "2.0"}
SETTINGS = {
    "env": {"task": "cheetah", "backend": "mujoco", "ensemble": "", "physics": ""},
    "agent": {"gamma": 0.99, "solver": {"name": "cg", "ridge": None}},
    "train": {"num_timesteps": 300},
}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Coarse pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_figures, "LOOK", [*report_figures.LOOK, {"savefig.dpi": 30}])
        yield


def write_run(folder, seed=0, steps=(100, 200, 300), exp="ddpg", offset=0.0, **changes):
    """A run folder; changes: agent__gamma=0.9 for a setting, or a key of config.json."""
    settings = json.loads(json.dumps(SETTINGS))
    config = {"exp": exp, "backend": "mujoco", "seed": seed, "preset": "default", "eager": False}
    config |= {"set": [], "settings": settings, "versions": VERSIONS}
    for name, value in changes.items():
        group, _, leaf = name.partition("__")
        if leaf:
            settings[group][leaf] = value
        else:
            config[name] = value
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if steps:
        _write_tables(folder, seed, steps, offset, bool(settings["env"]["ensemble"]))
    return folder


def _write_tables(folder, seed, steps, offset, masses):
    metrics, evaluations = CsvTable(folder / "metrics.csv"), CsvTable(folder / "eval.csv")
    for step in steps:
        row = {"step": step, "rollout/return": 1.0, "time/steps_per_second": 1000.0 + step}
        if step > 100:
            row |= {"train/loss": 1.0, "solver/iterations": 5.0, "solver/converged": 1.0}
            row |= {"solver/relative_residual": 1e-5, "solver/optimality_norm": float("nan")}
        metrics.append([row])
        for episode in range(4):
            cells = {"step": step, "episode": episode, "return": offset + seed + step + episode}
            if masses:
                cells |= {"length": 9, "physics/torso_mass": 3.0 * (1 + episode % 2)}
            evaluations.append([cells])


def groups_of(*folders):
    return group_runs([read_run(folder) for folder in folders])


class Page(HTMLParser):
    """Tags, attributes and visible text; the figures' data left out."""

    def __init__(self, path):
        super().__init__()
        self.text, self.links, self.open, self.tags = "", [], [], set()
        self.feed(path.read_text())
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def draw_only(monkeypatch, *names):
    """The page's other pictures, which take half a second each, are as of runs without any."""
    for name in report_write.FIGURES.keys() - set(names):
        monkeypatch.setitem(report_write.FIGURES, name, lambda groups: None)


def report(tmp_path, *patterns):
    paths = write_report(list(patterns) or [str(tmp_path / "runs")], tmp_path / "out")
    return paths, Page(tmp_path / "out" / "report.html")


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Two experiments with three seeds, masses and a solver; and the page on them."""
    root = tmp_path_factory.mktemp("rich")
    for seed in range(3):
        for exp in ("ddpg", "diffcritic"):
            folder = root / "runs" / exp / "mujoco" / f"seed_{seed}"
            write_run(folder, seed, exp=exp, env__ensemble=ENSEMBLE)
    return root, write_report(str(root / "runs"), root / "out")


# Finding and grouping


def test_runs_are_found_below_what_is_named_and_once(tmp_path):
    one = write_run(tmp_path / "a" / "ddpg" / "mujoco" / "seed_0")
    two = write_run(tmp_path / "b" / "ddpg" / "mujoco" / "seed_1")
    assert find_runs(str(tmp_path)) == find_runs(str(tmp_path / "?")) == [one, two]
    assert find_runs([str(one), str(tmp_path / "a"), str(one / "config.json")]) == [one]


def test_runs_equal_but_for_the_seed_are_a_group(tmp_path):
    folders = [
        write_run(tmp_path / "a", seed=1),
        write_run(tmp_path / "b", seed=0, set=["agent.gamma=0.99"]),  # says nothing new
        write_run(tmp_path / "c", seed=0, agent__gamma=0.9),
        write_run(tmp_path / "d", seed=0, versions=VERSIONS | {"numpy": "1.0"}),
        write_run(tmp_path / "e", seed=0, exp="other"),
    ]
    groups, repeated = groups_of(*folders)
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [0], [0], [0]]
    assert [group.name for group in groups] == [
        "ddpg, mujoco: gamma=0.99, numpy=2.0",
        "ddpg, mujoco: gamma=0.9, numpy=2.0",
        "ddpg, mujoco: gamma=0.99, numpy=1.0",
        "other, mujoco",
    ]
    assert not repeated


def test_of_a_repeated_seed_the_further_run_counts(tmp_path):
    short = write_run(tmp_path / "a", steps=(100,))
    long = write_run(tmp_path / "b", steps=(100, 200))
    (group,), repeated = groups_of(short, long)
    assert [run.folder for run in group.runs] == [long]
    assert [run.folder for run in repeated] == [short]


def test_many_differences_are_named_by_what_is_unusual(tmp_path):
    changes = {f"agent__x{i}": 0 for i in range(5)}
    folders = [write_run(tmp_path / str(i), **changes | {f"agent__x{i}": 1}) for i in range(5)]
    groups, _ = groups_of(*folders, write_run(tmp_path / "usual", **changes))
    assert [group.name for group in groups] == [
        *(f"ddpg, mujoco: x{i}=1" for i in range(5)),
        "ddpg, mujoco",
    ]


def test_long_values_do_not_make_long_names(tmp_path):
    folders = [write_run(tmp_path / str(i), agent__path=100 * "x" + str(i)) for i in range(2)]
    groups, _ = groups_of(*folders)
    name = f"ddpg, mujoco: path={29 * 'x'}…"
    assert [group.name for group in groups] == [name, f"{name} (2)"]


def test_only_differing_settings_are_listed_as_such(tmp_path):
    folders = [write_run(tmp_path / str(i), agent__gamma=0.9 + i / 100) for i in range(2)]
    assert differing([read_run(folder).config for folder in folders]) == ["agent.gamma"]


def test_the_training_range_is_the_ensembles(tmp_path):
    (group,), _ = groups_of(write_run(tmp_path / "a", env__ensemble=ENSEMBLE))
    assert group.runs[0].training_ranges == {"torso_mass": (3.0, 9.0)}
    assert group.environment == f"cheetah, mujoco, ensemble {ENSEMBLE}"
    (plain,), _ = groups_of(write_run(tmp_path / "b"))
    assert plain.runs[0].training_ranges == {} and plain.environment == "cheetah, mujoco"


def test_the_training_range_is_shaded(tmp_path, monkeypatch):
    spans = []
    monkeypatch.setattr("matplotlib.axes.Axes.axvspan", lambda axis, *x, **_: spans.append(x))
    groups, _ = groups_of(write_run(tmp_path / "a", env__ensemble=ENSEMBLE))
    report_figures.robot_response(groups)
    assert spans == [(3.0, 9.0)]


# The page


def test_the_page_has_all_sections_and_pictures(rich):
    root, paths = rich
    assert list(paths) == ["page", "curves", "final", "robots", "spread", "speed", "solver"]
    page = Page(root / "out" / "report.html")
    for path in paths.values():
        assert path.endswith(".html") or Path(path).read_bytes().startswith(b"\x89PNG")
    for title in (
        "Summary", "Learning curves", "Final returns", "Return by robot",
        "Percentiles of the return", "Steps per second", "Health of the hypergradient's solver",
        "What differs between groups", "Settings common to all runs", "Versions", "Run folders",
    ):  # fmt: skip
        assert title in page.text
    assert "diffcritic, mujoco" in page.text and "Fewer than 5 seeds" in page.text
    assert "cut short" not in page.text


def test_the_summary_is_right(rich):
    # Evaluations at 100, 200, 300 of seed s are 101.5 + s, 201.5 + s, 301.5 + s: finals 201.5 + s,
    # their mean 202.5; three are too few for an interval. The last evaluation's episodes
    # are 300 1 2 3, 301 2 3 4, 302 3 4 5: sorted 300 301 301 302 302 302 303 303 303 304 304 305.
    root, _ = rich
    html = (root / "out" / "report.html").read_text()
    cells = re.findall(r"<td.*?>(.*?)</td>", html)[:7]
    assert re.sub("<.*?>", "", cells[0]) == "ddpg, mujoco"
    assert re.sub("<.*?>", "", cells[1]) == "3 (0, 1, 2)"
    assert cells[2:] == ["300", "202 (202 to 204)", "202", "301 / 302 / 304", "1,250"]


def test_the_page_needs_nothing_else(rich):
    root, _ = rich
    page, html = Page(root / "out" / "report.html"), (root / "out" / "report.html").read_text()
    assert "http" not in html and "url(" not in html and "file:" not in html
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not page.tags & {"script", "link", "iframe"}


def test_the_same_runs_give_the_same_bytes(rich):
    root, _ = rich
    write_report([str(root / "runs" / "d*")], root / "again")
    for name in ("report.html", "report_curves.png", "report_robots.png"):
        assert (root / "out" / name).read_bytes() == (root / "again" / name).read_bytes()


def test_a_page_cannot_go_into_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="out is a file: name a folder"):
        write_report([str(tmp_path)], tmp_path / "out")


def test_a_single_seed_is_said_to_be_too_few(tmp_path, monkeypatch):
    draw_only(monkeypatch, "final", "robots")
    write_run(tmp_path / "runs" / "a")
    paths, page = report(tmp_path)
    assert "Fewer than 5 seeds" in page.text and "every group" in page.text
    assert "robots" not in paths and "left out" not in paths
    assert "Return by robot" not in page.text and "What differs" not in page.text


def test_unfinished_and_empty_runs_are_named(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    write_run(tmp_path / "runs" / "a", seed=0)
    write_run(tmp_path / "runs" / "b", seed=1, steps=(100, 200))
    empty = write_run(tmp_path / "runs" / "c", seed=2, steps=())
    with open(tmp_path / "runs" / "b" / "eval.csv", "a") as file:
        file.write("300,0,1.")  # being written
    paths, page = report(tmp_path)
    assert "ddpg, mujoco: seed 1 at 200 of 300 steps" in page.text
    assert f"Left out, without any row: {empty}." in page.text
    assert paths["left out"] == f"{empty}, without any row"
    assert "200 to 300of 300" in page.text


def test_failed_and_damaged_runs_are_named(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    write_run(tmp_path / "runs" / "a", seed=0)
    failed = write_run(tmp_path / "runs" / "b", seed=1, steps=(100, 200))
    (failed / "failed.json").write_text('{"error": "loss is nan"}')
    damaged = write_run(tmp_path / "runs" / "c", seed=2)
    (damaged / "config.json").write_text("{")
    paths, page = report(tmp_path)
    assert "Failed, and counted as far as it came" in page.text
    assert "ddpg, mujoco: seed 1 at 200 of 300 steps (loss is nan)" in page.text
    assert "cut short" not in page.text and "never evaluated" not in page.text
    assert "Left out, since" in page.text and "config.json cannot be read" in page.text
    assert paths["left out"].startswith(f"{damaged}, since {damaged / 'config.json'} cannot")
    (failed / "eval.csv").unlink()
    assert (
        "(loss is nan); never evaluated: its group's returns are of the other"
        in report(tmp_path)[1].text
    )


def test_a_run_without_evaluations_is_shown_as_far_as_it_is(tmp_path):
    folder = write_run(tmp_path / "runs" / "a", steps=(100,))
    (folder / "eval.csv").unlink()
    paths, page = report(tmp_path)
    assert list(paths) == ["page", "speed"]
    assert "seed 0 at 100 of 300 steps" in page.text


def test_names_are_escaped(tmp_path, monkeypatch):
    draw_only(monkeypatch, "curves", "spread")  # a name in a legend and in a title
    evil = '<script>"&"</script> $x_$'
    write_run(tmp_path / "runs" / "a", exp=evil, agent__gamma=evil)
    write_run(tmp_path / "runs" / "b", exp=evil, agent__gamma="<b>")
    _, page = report(tmp_path)
    assert not page.tags & {"script", "b"}
    assert f"{evil}, mujoco" in page.text and f"gamma={evil}" in page.text


def test_an_analysis_is_shown_by_the_runs_own_picture(tmp_path):
    folder = write_run(tmp_path / "runs" / "a", steps=(), exp="tabular")
    (folder / "results.csv").write_text("agent,return_mean\nomd,10\n")
    (folder / "sweep.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (folder / "broken.png").write_bytes(b"none")
    (folder / "report_old.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    paths, page = report(tmp_path)
    assert list(paths) == ["page"] and len(page.links) == 1
    assert f"The numbers are in {folder / 'results.csv'}." in page.text


def test_an_earlier_reports_pictures_do_not_stay(tmp_path, monkeypatch):
    draw_only(monkeypatch, "curves", "speed")
    folder = write_run(tmp_path / "runs" / "a")
    report(tmp_path)
    assert (tmp_path / "out" / "report_curves.png").exists()
    (folder / "eval.csv").unlink()
    report(tmp_path)
    assert not (tmp_path / "out" / "report_curves.png").exists()
    assert (tmp_path / "out" / "report_speed.png").exists()


# What is refused


def refused(tmp_path, match, *patterns):
    with pytest.raises(ConfigError, match=match) as caught:
        write_report(list(patterns) or [str(tmp_path / "runs")], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_jinja_there_is_no_page(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    write_run(tmp_path / "runs" / "a")
    refused(tmp_path, r"needs Jinja2 .*\[report\]")


def test_a_pattern_must_match_a_run(tmp_path):
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "empty").mkdir()
    good = str(tmp_path / "runs")
    refused(tmp_path, "matches nothing", good, str(tmp_path / "nowhere*"))
    refused(tmp_path, "holds a config.json", good, str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="--runs=GLOB"):
        write_report([], tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"exp": "x"}', '{"exp": 1, "backend": "b", "seed": 0, "settings": {}}',
             '{"exp": "x", "backend": "b", "seed": 0, "settings": {"env": 3}}'],
)  # fmt: skip
def test_a_damaged_configuration_is_named(tmp_path, text):
    folder = write_run(tmp_path / "runs" / "a")
    (folder / "config.json").write_text(text)
    refused(tmp_path, r"runs/a/config\.json")


def test_nothing_logged_at_all_is_refused(tmp_path):
    write_run(tmp_path / "runs" / "a", steps=())
    refused(tmp_path, "no run has logged anything")


def test_that_no_solve_converged_is_drawn_and_what_has_no_label_is_not(tmp_path):
    folder = write_run(tmp_path / "run")
    rows = "step,solver/converged,solver/iterations,solver/result\n100,0,0,4\n200,0,0,4\n"
    (folder / "metrics.csv").write_text(rows)
    groups, _ = groups_of(folder)
    (axis,) = report_figures.solver_health(groups).axes
    assert axis.get_title() == "share of solves that converged"


@pytest.mark.parametrize(
    "table, text, match",
    [("eval.csv", "step,return\n100,x\n", "line 2"), ("eval.csv", "step\n100\n", "no 'return'"),
     ("metrics.csv", "step,a\n1,2\n1\n", "damaged, line 3"),
     ("metrics.csv", 'step,a\n1,"2\n', "damaged")],
)  # fmt: skip
def test_a_damaged_table_is_named(tmp_path, table, text, match):
    folder = write_run(tmp_path / "runs" / "a")
    (folder / table).write_text(text)
    refused(tmp_path, rf"{table}.*{match}")
