import json

import numpy as np
import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.files import read_table
from baselines_tf2.common.rollout import Episode, SerialEnvs
from baselines_tf2.ddpg.experiments import EXPERIMENTS
from baselines_tf2.ddpg.learn import make_agent
from baselines_tf2.runs.evaluate_run import load_agent
from baselines_tf2.runs.experiment import MOVED, make_settings
from baselines_tf2.runs.folder import WEIGHTS, write_config
from baselines_tf2.runs.judging import Judge, evaluate, run_episode, summarise
from envs import ConfigError, default_ensemble, make_env
from tests import tiny
from tests.toys import Corridor, Robots

QUICK = (
    "train.num_timesteps=300",
    "train.eval_episodes=1",
    "train.random_steps=100",
    "agent.nb_train_steps=1",
    "agent.batch_size=8",
)


MASSES = ("env.ensemble=mass:1,0.25,0.5,1.5", "env.target=mass=1.9")


def settings(name, *overrides):
    return make_settings(EXPERIMENTS[name], "default", None, [*QUICK, *overrides])


def make_judge(*args):
    chosen = settings(*args)
    return Judge(chosen.env, chosen.train, seed=0)


def half(obs):
    return np.full((len(obs), 1), 0.5)


def test_robots_that_fall_have_returns_of_five_steps_on_mujoco():
    for name, experiment in EXPERIMENTS.items():
        for backend in experiment.backends:
            steps = make_settings(experiment, "default", backend, []).agent.n_step
            assert steps == (
                5 if backend == "mujoco" and name.endswith(("hopper", "walker")) else 1
            )
            assert make_settings(experiment, "original", backend, []).agent.n_step == 1


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
    out = summarise([Episode(float(x), x, {}) for x in range(11)], {})
    assert (out["return_mean"], out["length_mean"]) == (5.0, 5.0)
    assert (out["return_p10"], out["return_p50"], out["return_p90"]) == (1.0, 5.0, 9.0)


def test_the_judge_tells_robots_inside_from_those_outside():
    judge = make_judge("diffcritic_pendulum")
    episodes = [
        Episode(r, 9, {"mass": m}) for r, m in ((1.0, 0.25), (3.0, 0.5), (5.0, 1.5), (9.0, 2))
    ]
    out = judge.summary(episodes)
    assert (out["eval/return_inside"], out["eval/return_outside"]) == (4.0, 5.0)
    verdict = judge.verdict()
    assert verdict["inside"].startswith("4.0 mean") and verdict["outside"].startswith("5.0 mean")
    assert verdict["inside"].endswith("inside of mass 0.5 to 1.5")


def test_the_judges_grid_follows_the_ensemble_that_was_set():
    judge = make_judge("ddpg_ensemble_pendulum", "env.ensemble=mass:20,1,18,22")
    masses = [episode.physics["mass"] for episode in judge.episodes(lambda obs: 0 * obs[:, :1])]
    assert min(masses) == 9 and max(masses) == 33


def test_an_ensemble_of_several_parameters_is_judged_on_each():
    judge = make_judge("ddpg_ensemble_pendulum", "env.ensemble=mass:0.5,1.5;length:1,0.1,0.8,1.2")
    episodes = judge.episodes(lambda obs: 0 * obs[:, :1])
    assert len(episodes) == 18
    out = judge.summary(episodes)
    inside = [e for e in episodes if 0.5 <= e.physics["mass"] <= 1.5 and e.physics["length"] <= 1.2]
    inside = [e.episode_return for e in inside if e.physics["length"] >= 0.8]
    assert out["eval/return_inside"] == pytest.approx(np.mean(inside))
    assert out["eval/return_inside_worst_robot"] == min(inside)


def test_the_judge_adds_no_reward_offset():
    args = "ddpg_ensemble_pendulum", "env.ensemble=mass:1,0.25,0.5,1.5"
    plain, offset = make_judge(*args), make_judge(args[0], args[1] + ";reward_offset:50,1,49,51")
    policy = lambda obs: 0 * obs[:, :1]
    returns = [[e.episode_return for e in judge.episodes(policy)] for judge in (plain, offset)]
    assert returns[0] == returns[1] and max(returns[0]) <= 0  # 50 a step would be 10,000


def test_evaluations_are_due_each_interval_and_at_the_end():
    judge = make_judge("ddpg_pendulum", "train.eval_interval=100")
    assert [judge.due(step) for step in (40, 80, 120, 160, 210, 300)] == [0, 0, 1, 0, 1, 1]


def test_the_untrained_agent_is_judged_if_asked(tmp_path):
    def judged(*overrides):
        folder = tmp_path / str(len(overrides))
        few = "agent.nb_rollout_steps=20", "train.nb_epoch_cycles=2"
        tiny.run("ddpg_pendulum", folder, tiny.make("ddpg_pendulum", *few, *overrides))
        return [int(row["step"]) for row in read_table(folder / "eval.csv")]

    assert judged() == [40, 80]
    assert judged("train.eval_at_start=true") == [0, 40, 80]


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
        for name in ("diffcritic_offset_cheetah", "ddpg_offset_cheetah")
    )
    assert difference.agent.batch_size == q.agent.batch_size
    assert difference.env == q.env and difference.train == q.train
    plain = make_settings(EXPERIMENTS["diffcritic_cheetah"], "default", None, [])
    assert plain.agent == difference.agent and plain.env.ensemble_size == 16
    assert (plain.agent.critic, plain.agent.pairing) == ("additive", "same_member")


@pytest.mark.parametrize(
    "task, backend, offset",
    [("cheetah", "mujoco", "0,10,-30,30"), ("cheetah", "pybullet", "0,1,-3,3"),
     ("pendulum", "classic", "0,5,-15,15")],
)  # fmt: skip
def test_the_decisive_case_is_the_mass_ensemble_with_a_level_of_reward(task, backend, offset):
    for name in (f"ddpg_offset_{task}", f"diffcritic_offset_{task}"):
        chosen = make_settings(EXPERIMENTS[name], "default", backend, []).env
        expected = f"{default_ensemble(task, backend)};reward_offset:{offset}"
        assert (chosen.ensemble, chosen.ensemble_size) == (expected, 16)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["train.random_steps=300"], "leaves nothing to train on in 300 steps"),
        (
            ["train.random_steps=0", "agent.critic=additive", "agent.pairing=same_member"],
            "set env.ensemble and env.ensemble_size",
        ),
        (["train.random_steps=0", "train.epopt_trajectories=10"], "selects nothing in 300 steps"),
        (
            ["train.random_steps=0", "train.num_envs=3"],
            "nb_rollout_steps=100 is of all environments: num_envs=3 must divide",
        ),
        (["train.random_steps=0", "train.adapt_every=100"], "need each other"),
        (["train.random_steps=0", *MASSES], "need each other"),
        (["train.random_steps=0", *MASSES, "train.adapt_every=300"], "adapts to nothing"),
    ],
)
def test_runs_that_could_not_learn_are_refused(overrides, message):
    name, quick = "ddpg_pendulum", [x for x in QUICK if "random" not in x]
    with pytest.raises(ConfigError, match=message):
        make_settings(EXPERIMENTS[name], "default", None, [*quick, *overrides])


@pytest.mark.parametrize("setting", MOVED)
def test_a_setting_by_its_older_name_is_refused_with_the_new_one(setting):
    with pytest.raises(ConfigError, match=f"^'{setting}' is '{MOVED[setting]}' now") as error:
        settings("ddpg_pendulum", f"{setting}=1")
    assert "\n" not in str(error.value)


def test_a_run_of_settings_by_their_older_names_is_loaded(tmp_path):
    chosen = settings("diffcritic_pendulum", "agent.pairing=coupled", "train.num_envs=2")
    twins = SerialEnvs([make_env(chosen.env, training=False) for _ in range(2)], twins=True)
    make_agent(twins, chosen.agent, seed=0).save(tmp_path / WEIGHTS)
    write_config(tmp_path, {"exp": "diffcritic_pendulum", "backend": "classic"}, chosen)
    config = json.loads((tmp_path / "config.json").read_text())
    for old, new in MOVED.items():
        (group, name), (new_group, new_name) = old.split("."), new.split(".")
        config["settings"][group][name] = config["settings"][new_group].pop(new_name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_agent(EXPERIMENTS, tmp_path)[1] == chosen


def test_robots_that_do_not_return_make_no_pairs():
    same = "agent.pairing=same_member"
    with pytest.raises(ConfigError, match="pairs an episode with itself.* env.ensemble_size"):
        settings("diffcritic_pendulum", same, "env.ensemble_size=0")
    settings("diffcritic_pendulum", same, "env.ensemble_size=16")


@pytest.mark.parametrize(
    "overrides", [(), ("agent.pairing=coupled", "train.num_envs=2"), ("train.num_envs=2",)]
)
def test_a_finished_run_is_loaded_and_acts(tmp_path, overrides):
    chosen = tiny.make("diffcritic_pendulum", "agent.nb_rollout_steps=20", *overrides)
    tiny.run("diffcritic_pendulum", tmp_path, chosen)
    write_config(tmp_path, {"exp": "diffcritic_pendulum", "backend": "classic"}, chosen)
    agent = load_agent(EXPERIMENTS, tmp_path)[0]
    saved = np.load(tmp_path / "weights.npz")
    np.testing.assert_array_equal(agent.nets.actor.get_weights()[0], saved["actor/0"])
    assert agent.predict(np.zeros(3)).shape == (1,)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        load_agent(EXPERIMENTS, tmp_path)[0]


def test_epopt_runs_even_before_anything_is_stored_and_then_selects(tmp_path):
    at_once = "train.epopt_warmup=0", "train.random_steps=0"
    few = "agent.nb_rollout_steps=20", "train.nb_epoch_cycles=1"
    chosen = tiny.make("epopt_pendulum", *at_once, *few)
    tiny.run("epopt_pendulum", tmp_path, chosen)
    first, *_, last = read_table(tmp_path / "metrics.csv")
    assert not first["train/critic_loss"] and last["train/critic_loss"]
    assert float(last["epopt/return_stored"]) < float(last["epopt/return"])


def test_distractors_and_noise_reach_the_agent(tmp_path):
    disturbed = "env.distractors=4", "env.observation_noise=0.1"
    chosen = tiny.make("ddpg_pendulum", "agent.nb_rollout_steps=20", *disturbed)
    tiny.run("ddpg_pendulum", tmp_path, chosen)
    assert np.load(tmp_path / "weights.npz")["actor/0"].shape == (7, 8)
    assert json.loads(str(np.load(tmp_path / "weights.npz")["fits"]))["critic"] == "q"
