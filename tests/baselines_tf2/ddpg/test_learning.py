"""Learning proper, minutes long: `pytest -m slow`."""

import pytest

from baselines_tf2.common.files import read_table
from baselines_tf2.ddpg.experiments import EXPERIMENTS
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import make_settings

SOLVED = -300  # a random policy returns about -1200, the best about -150


class Silent:
    def update(self, step, episode_return):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name, overrides",
    [
        ("ddpg_pendulum", []),
        ("ddpg_ensemble_pendulum", []),
        ("diffcritic_pendulum", []),
        ("diffcritic_pendulum", ["agent.critic=antisymmetric"]),
        ("diffcritic_pendulum", ["agent.pairing=same_member", "env.ensemble_size=8"]),
        ("diffcritic_pendulum", ["agent.pairing=coupled", "train.num_envs=2"]),
    ],
)
def test_pendulum_is_learned(tmp_path, name, overrides, seed):
    settings = make_settings(EXPERIMENTS[name], "default", None, overrides)
    EXPERIMENTS[name].prepare(settings, seed)(tmp_path, Silent(), Checkpoints(tmp_path))
    rows = [row for row in read_table(tmp_path / "metrics.csv") if row["eval/return_mean"]]
    column = "eval/return_inside" if "eval/return_inside" in rows[0] else "eval/return_mean"
    returns = [float(row[column]) for row in rows[-5:]]
    assert sum(returns) / 5 > SOLVED
