"""A room imports only from the floors below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("envs", "baselines_tf2", "omd_tf2", "run_experiments", "tests", "benchmarks")
COMMON = ("envs", "baselines_tf2.common")
RUNS = (*COMMON, "baselines_tf2.runs")
OMD = (*RUNS, "omd_tf2.implicit", "omd_tf2.common")
FLOORS = {  # room -> what of ours it may import
    "envs": ("envs",),
    "baselines_tf2/common": COMMON,
    "baselines_tf2/runs": RUNS,
    "baselines_tf2/report": (*RUNS, "baselines_tf2.report"),
    "baselines_tf2/sweeps": (*RUNS, "baselines_tf2.report", "baselines_tf2.sweeps"),
    "baselines_tf2/ddpg": (*RUNS, "baselines_tf2.ddpg"),
    "omd_tf2/implicit": ("omd_tf2.implicit",),
    "omd_tf2/common": OMD,
    "omd_tf2/tabular": (*OMD, "omd_tf2.tabular"),
    "omd_tf2/cartpole": (*OMD, "omd_tf2.cartpole"),
    "omd_tf2/halfcheetah": (*OMD, "omd_tf2.halfcheetah"),
}
SIMULATORS = ("mujoco", "pybullet", "pybullet_envs_gymnasium")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def files(room):
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_from_below(room):
    for path in files(room):
        for name in imported(path):
            if name.partition(".")[0] in OURS:
                assert name.startswith(FLOORS[room]), f"{path.relative_to(ROOT)} imports {name}"


def test_simulators_are_imported_by_their_own_modules_alone():
    for path in files("."):
        if path.is_relative_to(ROOT / "tests") or ".venv" in path.parts:
            continue
        for name in imported(path):
            if name.partition(".")[0] in SIMULATORS:
                assert path.parent.name == "envs" and path.name.endswith("_physics.py"), path


def test_tensorflow_compiles_in_one_place_alone():
    for package in ("baselines_tf2", "envs", "omd_tf2"):
        for path in files(package):
            if path.name != "compile.py":
                used = {
                    ast.unparse(n)
                    for n in ast.walk(ast.parse(path.read_text()))
                    if isinstance(n, ast.Attribute)
                }
                assert "tf.function" not in used, path


def test_nothing_is_pickled():
    for path in (p for room in FLOORS for p in files(room)):
        text = path.read_text()
        assert "import pickle" not in text and "allow_pickle=True" not in text, path


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_is_small_enough_to_look_around_in(room):
    assert len(list((ROOT / room).glob("*.py"))) <= 14
    for path in files(room):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_the_driver_is_flags_and_a_dispatch():
    assert (ROOT / "run_experiments.py").read_text().count("\n") <= 250


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text().count("\n") <= 150
