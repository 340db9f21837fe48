import numpy as np
import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.files import read_table
from baselines_tf2.runs.adaptation import TargetAdaptation
from envs import EnvSpec, find_robot, make_env
from tests import tiny
from tests.tiny import short_episodes


def adapting(every, task="pendulum", backend="classic", num_envs=1, **fields):
    spec = EnvSpec(task, backend, **fields)
    envs = [make_env(spec, training=True) for _ in range(num_envs)]
    return TargetAdaptation(envs, spec, every, seed=0), envs


def swing(obs):
    """A policy for pendulums: it pumps, so that the mass is felt."""
    return np.sign(obs[:, 2:3])


def test_it_closes_in_on_a_target_outside_the_range_and_all_environments_draw_from_there():
    start = {"ensemble": "mass:1,0.25,0.5,1.5", "target": "mass=1.9"}
    adaptation, envs = adapting(10, num_envs=2, **start)
    assert adaptation.metrics() == {"ensemble/mass_mean": 1.0, "ensemble/mass_std": 0.25}
    errors = [0.9]
    for step in range(10, 60, 10):
        adaptation.after_cycle(step, lambda: swing)
        errors.append(abs(adaptation.metrics()["ensemble/mass_mean"] - 1.9))
    assert errors[1] < 0.7 and errors[-1] < 0.15, errors
    assert adaptation.metrics()["ensemble/mass_std"] < 0.15
    assert adaptation.metrics()["ensemble/target_steps"] == 5 * 2 * 200
    for env in envs:
        masses = [env.reset(seed=seed)[1]["physics"]["mass"] for seed in range(20)]
        assert abs(np.mean(masses) - 1.9) < 0.2 and np.std(masses) < 0.2
    assert "after 5 adaptations, 2,000 target steps" in adaptation.verdict()


def test_a_target_that_fails_says_at_which_step():
    adaptation, _ = adapting(10, ensemble="mass:1,0.25,0.5,1.5", target="mass=1.9")
    with pytest.raises(TrainingError, match="at step 10: training stops"):
        adaptation.after_cycle(10, lambda: lambda obs: np.full((1, 1), np.nan))


def test_that_nothing_explains_the_target_stops_training_at_its_step(monkeypatch):
    with short_episodes():
        adaptation, _ = adapting(10, ensemble="mass:1,0.25,0.5,1.5", target="mass=1.9")
        monkeypatch.setattr(adaptation, "_explains", lambda *_: -np.inf)
        with pytest.raises(TrainingError, match="no sampled robot .* at step 10: training stops"):
            adaptation.after_cycle(10, lambda: swing)


def test_it_adapts_at_each_interval_once():
    with short_episodes():
        adaptation, _ = adapting(10, ensemble="mass:1,0.25,0.5,1.5", target="mass=1.9")
        steps = []
        for step in (4, 8, 12, 18, 20, 24, 45):
            adaptation.after_cycle(step, lambda: swing)
            steps.append(adaptation.metrics().get("ensemble/target_steps", 0) // 26)
    assert steps == [0, 0, 1, 1, 2, 2, 3]


def test_what_observations_do_not_show_stays_to_the_bit():
    ensemble = "mass:1,0.25,0.5,1.5;reward_offset:0,1,-2,2"
    with short_episodes():
        adaptation, (env,) = adapting(1, ensemble=ensemble, target="mass=1.9")
        adaptation.after_cycle(1, lambda: swing)
    assert str(find_robot(env).ensemble).endswith(";reward_offset:0,1,-2,2")
    assert adaptation.metrics()["ensemble/mass_mean"] != 1.0


NOISY = {"distractors": 2, "observation_noise": 0.1, "action_noise": 0.3}


@pytest.mark.parametrize(
    ("backend", "ensemble", "target"),
    [("mujoco", "torso_mass:6,1.5,3,9", 11.0), ("pybullet", "torso_mass:9.5,2.4,4.7,14.2", 17.0)],
)
def test_noise_distractors_and_what_is_fixed_are_no_riddles(monkeypatch, backend, ensemble, target):
    for name, value in {"ROBOTS": 20, "LEAST": 3, "TRANSITIONS": 20}.items():
        monkeypatch.setattr(f"baselines_tf2.runs.adaptation.{name}", value)
    fields = {"ensemble": ensemble, "target": f"torso_mass={target}", "physics": "friction=0.5"}
    noise = np.random.default_rng(0)
    shaking = lambda obs: noise.uniform(-1, 1, (1, 6)) * (obs.shape[1] in (19, 28))
    with short_episodes():
        adaptation, _ = adapting(1, "cheetah", backend, **fields, **NOISY)
        for step in range(1, 5):
            adaptation.after_cycle(step, lambda: shaking)
    assert adaptation.metrics()["ensemble/torso_mass_mean"] == pytest.approx(target, rel=0.02)


def test_a_run_logs_where_its_ensemble_is_and_says_so_in_the_end(tmp_path):
    target = ("env.target=mass=1.9", "train.adapt_every=30")
    summary = tiny.run("epopt_pendulum", tmp_path, tiny.make("epopt_pendulum", *target))
    assert summary["ensemble"].startswith("mass 1.") and "2 adaptations, 52" in summary["ensemble"]
    first, *_, last = read_table(tmp_path / "metrics.csv")
    assert float(first["ensemble/mass_mean"]) == 1.0 and float(last["ensemble/mass_mean"]) > 1.0
    assert "inside of mass 0.5 to 1.5" in summary["inside"]  # as it was at the start
