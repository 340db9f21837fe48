import json

import numpy as np
import pytest

from baselines_tf2.common.checkpoint import Checkpoints
from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.evaluate import evaluate, run_episode, summarise
from baselines_tf2.common.evaluate_run import load_agent
from baselines_tf2.common.experiment import make_settings
from baselines_tf2.common.files import read_table
from baselines_tf2.common.rollout import Episode
from baselines_tf2.common.run_folder import write_config
from baselines_tf2.common.training import Judge
from baselines_tf2.ddpg.experiments import EXPERIMENTS
from envs import ConfigError
from tests.toys import Corridor, Robots

QUICK = (
    "train.num_timesteps=300",
    "train.eval_episodes=1",
    "agent.random_steps=100",
    "agent.nb_train_steps=1",
    "agent.batch_size=8",
)


class Silent:
    def update(self, step, episode_return):
        pass


def settings(name, *overrides):
    return make_settings(EXPERIMENTS[name], "default", None, [*QUICK, *overrides])


def make_judge(*args):
    chosen = settings(*args)
    return Judge(chosen.env, chosen.train, seed=0)


def half(obs):
    return np.full((len(obs), 1), 0.5)


def test_an_evaluation_episode_by_hand():
    env = Robots(length=4)
    episode = run_episode(half, env, seed=3, physics={"torso_mass": 7.0})
    assert episode == Episode(10.0, 4, {"torso_mass": 7.0})
    np.testing.assert_allclose(env.actions, 1.0)  # 0.5 of the bound 2
    assert env.resets == [(3, {"physics": {"torso_mass": 7.0}})]


def test_every_robot_is_evaluated_from_a_fresh_seed():
    env = Robots(length=2)
    episodes = evaluate(
        half, env, np.random.default_rng(0), [{"torso_mass": m} for m in (1.0, 2.0)]
    )
    assert [e.physics["torso_mass"] for e in episodes] == [1.0, 2.0]
    assert len({seed for seed, _ in env.resets}) == 2


def test_an_evaluation_that_is_not_finite_stops():
    class Broken(Corridor):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, np.nan, *rest

    with pytest.raises(TrainingError, match="evaluation episode of 5 steps returned nan"):
        run_episode(half, Broken(), seed=0)


def test_summary_by_hand():
    out = summarise([Episode(float(x), x, {}) for x in range(11)])
    assert (out["return_mean"], out["length_mean"]) == (5.0, 5.0)
    assert (out["return_p10"], out["return_p50"], out["return_p90"]) == (1.0, 5.0, 9.0)


def test_the_judge_tells_robots_inside_from_those_outside():
    judge = make_judge("diffcritic_pendulum")
    episodes = [
        Episode(r, 9, {"mass": m}) for r, m in ((1.0, 0.25), (3.0, 0.5), (5.0, 1.5), (9.0, 2))
    ]
    out = judge.summary(episodes)
    assert (out["eval/return_inside"], out["eval/return_outside"]) == (4.0, 5.0)
    assert "4.0 inside the training range [0.5, 1.5] kg, 5.0 outside" in judge.verdict()["robots"]


def test_the_judges_grid_follows_the_ensemble_that_was_set():
    judge = make_judge("ddpg_ensemble_pendulum", "env.ensemble=mass:20,1,18,22")
    masses = [episode.physics["mass"] for episode in judge.episodes(lambda obs: 0 * obs[:, :1])]
    assert min(masses) == 9 and max(masses) == 33


def test_evaluations_are_due_each_interval_and_at_the_end():
    judge = make_judge("ddpg_pendulum", "train.eval_interval=100")
    assert [judge.due(step) for step in (40, 80, 120, 160, 210, 300)] == [0, 0, 1, 0, 1, 1]


def test_the_untrained_agent_is_judged_if_asked(tmp_path, eagerly):
    def judged(*overrides):
        chosen = make_settings(EXPERIMENTS["ddpg_pendulum"], "default", None, [*QUICK, *overrides])
        folder = tmp_path / str(len(overrides))
        folder.mkdir()
        EXPERIMENTS["ddpg_pendulum"].prepare(chosen, 0)(folder, Silent(), Checkpoints(folder))
        return [int(row["step"]) for row in read_table(folder / "eval.csv")]

    assert judged() == [300]
    assert judged("train.eval_at_start=true") == [0, 300]


def test_presets_are_the_sources_own():
    agent = make_settings(EXPERIMENTS["ddpg_cheetah"], "original", None, []).agent
    assert (agent.noise_type, agent.batch_size, agent.critic_l2_reg) == (
        "adaptive-param_0.2",
        64,
        0.01,
    )
    seed = make_settings(EXPERIMENTS["diffcritic_cheetah"], "original", None, []).agent
    assert (seed.critic, seed.tau, seed.critic_optimizer) == ("concat", 1.0, "sgd")


def test_a_fair_comparison_sees_the_same_transitions():
    difference, q = (
        make_settings(EXPERIMENTS[name], "default", None, [])
        for name in ("diffcritic_cheetah", "ddpg_ensemble_cheetah")
    )
    assert difference.agent.batch_size == q.agent.batch_size
    assert difference.env == q.env and difference.train == q.train


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["agent.random_steps=300"], "leaves nothing to train on in 300 steps"),
        (
            ["agent.random_steps=0", "agent.critic=additive", "agent.pairing=same_member"],
            "needs an ensemble",
        ),
    ],
)
def test_runs_that_could_not_learn_are_refused(overrides, message):
    name, quick = "ddpg_pendulum", [x for x in QUICK if "random" not in x]
    with pytest.raises(ConfigError, match=message):
        make_settings(EXPERIMENTS[name], "default", None, [*quick, *overrides])


def test_a_finished_run_is_loaded_and_acts(tmp_path, eagerly):
    chosen = settings("diffcritic_pendulum")
    EXPERIMENTS["diffcritic_pendulum"].prepare(chosen, 0)(tmp_path, Silent(), Checkpoints(tmp_path))
    write_config(tmp_path, {"exp": "diffcritic_pendulum", "backend": "classic"}, chosen)
    agent = load_agent(EXPERIMENTS, tmp_path)[0]
    saved = np.load(tmp_path / "weights.npz")
    np.testing.assert_array_equal(agent.nets.actor.get_weights()[0], saved["actor/0"])
    assert agent.predict(np.zeros(3)).shape == (1,)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        load_agent(EXPERIMENTS, tmp_path)[0]


def test_epopt_runs_even_before_anything_is_stored(tmp_path, eagerly):
    chosen = settings("ddpg_ensemble_pendulum", "agent.epopt_trajectories=50")
    EXPERIMENTS["ddpg_ensemble_pendulum"].prepare(chosen, 0)(
        tmp_path, Silent(), Checkpoints(tmp_path)
    )
    assert "train/critic_loss" not in read_table(tmp_path / "metrics.csv")[0]


def test_distractors_and_noise_reach_the_agent(tmp_path, eagerly):
    chosen = settings("ddpg_pendulum", "env.distractors=4", "env.observation_noise=0.1")
    EXPERIMENTS["ddpg_pendulum"].prepare(chosen, 0)(tmp_path, Silent(), Checkpoints(tmp_path))
    assert np.load(tmp_path / "weights.npz")["actor/0"].shape == (7, 64)
    assert json.loads(str(np.load(tmp_path / "weights.npz")["fits"]))["critic"] == "q"
