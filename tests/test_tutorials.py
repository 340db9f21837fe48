"""The tutorials' code does what they say: every ```python and ```bash block runs, in order.

Blocks called ```py and ```sh are shown alone: what needs hours, or a package that is not ours.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import run_experiments
from tests.tiny import short_episodes

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(
    r'^```(python|bash|toml title="(?P<path>[^"]+)")\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)


class StandIn:
    """A model of Stable-Baselines3, as far as judging asks: the torques of a random linear map."""

    def __init__(self):
        self._kernel = np.random.default_rng(0).normal(size=(17, 6))

    def predict(self, obs, deterministic=False):
        assert deterministic
        return np.tanh(obs @ self._kernel), None


def drive(command):
    """`python run_experiments.py ...` in this process, which has the libraries already."""
    program, script, *flags = shlex.split(command)
    assert (program, script) == ("python", "run_experiments.py"), command
    try:
        forget_flags()  # other tests' that were parsed in this process
        run_experiments.FLAGS([script, *flags])
        run_experiments.main([script])
    finally:
        forget_flags()


def forget_flags():
    for flag in run_experiments.FLAGS.flags_by_module_dict()["run_experiments"]:
        run_experiments.FLAGS[flag.name].unparse()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, monkeypatch, eagerly):
    """In a folder of its own, episodes cut short; `model` is what judging_sb3 loads elsewhere."""
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    namespace = {"model": StandIn(), "__name__": path.stem}
    blocks = list(BLOCK.finditer(path.read_text()))
    assert blocks
    with short_episodes():
        for block in blocks:
            code, file = block["code"], block["path"]
            if file:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_text(code)
            elif block[1] == "bash":
                drive(code)
            else:
                line = path.read_text()[: block.start("code")].count("\n")
                exec(compile("\n" * line + code, path, "exec"), namespace)  # noqa: S102
