"""`reward_offset` is met in training and never where a policy is judged."""

import pytest

from baselines_tf2.common.files import read_table
from baselines_tf2.runs.evaluate_run import evaluate_run
from baselines_tf2.runs.folder import write_config
from run_experiments import EXPERIMENTS
from tests import tiny

OFFSET = 10_000  # per step: no robot's own return of a whole episode comes near it


@pytest.mark.parametrize("name", ["ddpg_pendulum", "mle_cheetah"])
def test_training_has_the_offset_and_evaluations_do_not(name, tmp_path):
    """In the run's own evaluations, and in those of `--mode=evaluate`."""
    settings = tiny.make(name, f"env.physics=reward_offset={OFFSET}")
    tiny.run(name, tmp_path, settings)
    trained = [row["rollout/return"] for row in read_table(tmp_path / "metrics.csv")]
    assert all(float(x) > OFFSET * tiny.EPISODE / 2 for x in trained if x) and any(trained)
    judged = [row["return"] for row in read_table(tmp_path / "eval.csv")]

    write_config(tmp_path, {"exp": name, "backend": settings.env.backend}, settings)
    mass = "mass=1" if name == "ddpg_pendulum" else "torso_mass=6"
    with tiny.tiny_world(eager=True):
        evaluate_run(EXPERIMENTS, tmp_path, mass, episodes=1, seed=0)
    judged += [row["return"] for row in read_table(tmp_path / "sweep.csv")]
    assert len(judged) >= 2 and all(abs(float(x)) < OFFSET for x in judged)
