import inspect

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.ddpg import DDPGConfig, LoopConfig, learn, train
from envs import ConfigError, EnvSpec, make_env
from tests.toys import Corridor, Robots, Target, ensemble_of

QUICK = {"nb_rollout_steps": 20, "nb_train_steps": 2, "nb_epoch_cycles": 2, "batch_size": 8}


def test_keywords_and_defaults_are_baselines():
    """The signature of `ddpg.learn` in OpenAI Baselines ea25b9e."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(learn).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    empty = inspect.Parameter.empty
    assert defaults == {
        "network": empty, "env": empty, "seed": None, "total_timesteps": None, "nb_epochs": None,
        "nb_epoch_cycles": 20, "nb_rollout_steps": 100, "reward_scale": 1.0, "render": False,
        "render_eval": False, "noise_type": "adaptive-param_0.2", "normalize_returns": False,
        "normalize_observations": True, "critic_l2_reg": 1e-2, "actor_lr": 1e-4, "critic_lr": 1e-3,
        "popart": False, "gamma": 0.99, "clip_norm": None, "nb_train_steps": 50,
        "nb_eval_steps": 100, "batch_size": 64, "tau": 0.01, "eval_env": None,
        "param_noise_adaption_interval": 50, "load_path": None,
    }  # fmt: skip
    config = vars(DDPGConfig()) | vars(LoopConfig())
    for name in set(defaults) & set(config):
        assert config[name] == defaults[name], name


def test_learn_trains_evaluates_and_saves(tmp_path, eagerly):
    epochs = []
    agent = learn(
        "mlp",
        Target(),
        seed=0,
        total_timesteps=80,
        eval_env=Target(),
        nb_eval_steps=5,
        callback=lambda step, metrics: epochs.append((step, metrics)),
        num_hidden=8,
        **QUICK,
    )
    assert [step for step, _ in epochs] == [40, 80]
    assert epochs[0][1]["eval/episodes"] == 10
    assert {"rollout/return", "train/critic_loss", "reference/q_mean", "eval/q"} <= set(
        epochs[1][1]
    )
    agent.save(tmp_path / "w.npz")
    loaded = learn("mlp", Target(), total_timesteps=0, load_path=tmp_path / "w.npz", num_hidden=8)
    obs = np.array([[0.3]])
    np.testing.assert_array_equal(loaded.predict(obs), agent.predict(obs))
    assert agent.nets.actor.layers[0].units == agent.nets.critic.layers[0].units == 8


def test_baselines_ways_of_saying_it(eagerly):
    """No noise is None, an activation is a function, and a number of steps may be a float."""
    agent = learn(
        "mlp",
        Target(),
        total_timesteps=40.0,
        noise_type=None,
        activation=tf.nn.relu,
        callback=None,
        **QUICK,
    )
    assert agent.action_noises == []
    assert agent.nets.actor.layers[1].activation.__name__ == "relu"


def test_nb_epochs_counts_whole_epochs(eagerly):
    steps = []
    learn(
        "mlp", Target(), nb_epochs=3, callback=lambda s, m: steps.append(s), num_hidden=4, **QUICK
    )
    assert steps == [40, 80, 120]
    with pytest.raises(ConfigError, match="not both"):
        learn("mlp", Target(), nb_epochs=3, total_timesteps=5)


def test_a_network_of_the_callers_own(eagerly):
    def tiny(*, seed, dtype, width):
        return [keras.layers.Dense(width, "relu", dtype=dtype)]

    agent = learn(tiny, Target(), total_timesteps=40, width=5, **QUICK)
    assert agent.nets.actor.layers[0].units == 5


def test_several_environments_at_once(eagerly):
    steps, updates = [], []
    for env in (vector_of(Target(), Target(), Target()), Target()):
        agent = learn(
            "mlp", env, total_timesteps=120, callback=lambda s, m: steps.append(s), **QUICK
        )
        updates.append(int(agent.nets.critic_optimizer.iterations))
    assert steps == [120] + [40, 80, 120]
    assert updates == [12, 12]  # 2 for each 20 transitions, however many environments


@pytest.mark.parametrize(
    "options, message",
    [
        ({"network": "mpl"}, "did you mean 'mlp'"),
        ({"num_layer": 3}, "did you mean 'num_layers'"),
        ({"env": Corridor(action_space=gym.spaces.Discrete(2))}, "continuous action space"),
        ({"noise_type": "nromal_0.1"}, "did you mean 'normal'"),
        ({"network": None}, "unknown network 'None'"),
        ({"env": "Pendulum-v1"}, "must be a Gymnasium environment"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"total_timesteps": -10}, "total_timesteps must be at least 0"),
        ({"batch_size": 2.5}, "batch_size must be of type int"),
        ({"num_hidden": "8"}, "num_hidden must be of type int"),
        ({"eval_env": Target(), "nb_eval_steps": 0}, "nb_eval_steps must be at least 1"),
        ({"eval_env": Corridor()}, "observations of different shapes"),
        ({"env": (one := Target()), "eval_env": one}, "eval_env is an environment that is trained"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        learn(**({"network": "mlp", "env": Target(), "total_timesteps": 10} | options))


def test_rendering_shows_every_step(eagerly):
    class Shown(Target):
        frames = 0

        def render(self):
            Shown.frames += 1

    learn("mlp", Shown(), total_timesteps=20, render=True, num_hidden=4, **QUICK)
    assert Shown.frames == 20


def test_a_toy_task_is_solved():
    """-(a - 0.5 s)^2: the best action is half the observation, which a constant misses by 0.083."""
    agent = learn(
        "mlp",
        Target(),
        seed=1,
        total_timesteps=3000,
        noise_type="normal_0.3",
        actor_lr=1e-3,
        critic_l2_reg=0.0,
        normalize_observations=False,
        num_hidden=32,
    )
    obs = np.linspace(-0.9, 0.9, 19)[:, None]
    assert np.square(agent.predict(obs) - 0.5 * obs).mean() < 0.02


SMALL = {
    **{name: value for name, value in QUICK.items() if name != "nb_epoch_cycles"},
    "actor_network": MLPConfig(1, 4),
    "critic_network": MLPConfig(1, 4),
    "noise_type": "normal_0.1",
}


def split(options):
    """The loop's settings and the agent's."""
    names = set(options) & set(vars(LoopConfig()))
    loop = LoopConfig(nb_epoch_cycles=2, **{name: options[name] for name in names})
    config = {name: value for name, value in options.items() if name not in names}
    return DDPGConfig(**SMALL | config), loop


def vector_of(*envs):
    disabled = gym.vector.AutoresetMode.DISABLED
    return gym.vector.SyncVectorEnv([lambda env=e: env for e in envs], autoreset_mode=disabled)


def pendulums(num, **options):
    spec = EnvSpec("pendulum", "classic", **options)
    return [make_env(spec, training=True) for _ in range(num)]


@pytest.mark.parametrize(
    "env, options",
    [
        (Target, {"n_step": 3}),
        (lambda: Robots(length=3), {"critic": "concat", "pairing": "same_member", "n_step": 3}),
        (
            lambda: vector_of(Robots(length=3), Robots(length=4)),
            {"critic": "additive", "pairing": "same_member", "num_envs": 2},
        ),
        (
            lambda: pendulums(2, ensemble="mass:1,0.25,0.5,1.5"),
            {"critic": "antisymmetric", "pairing": "coupled", "num_envs": 2, "overlap": True},
        ),
        (
            lambda: Robots(length=3),
            {"epopt_trajectories": 2, "epopt_epsilon": 0.5, "epopt_warmup": 0},
        ),
        (Target, {"overlap": True, "noise_type": "adaptive-param_0.2"}),
    ],
)
def test_python_trains_what_the_driver_does(env, options, eagerly):
    """Every kind of run goes to its end, and the same seed gives the same weights."""
    weights, rows = [], []
    for _ in range(2):
        agent = train(
            env(),
            *split(options),
            total_timesteps=80,
            random_steps=20,
            seed=3,
            callback=lambda s, m: rows.append((s, m)),
        )
        weights.append(agent.nets.actor.get_weights() + agent.nets.critic.get_weights())
    assert [step for step, _ in rows] == [40, 80] * 2
    assert "train/critic_loss" in rows[-1][1]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_learn_is_train_with_baselines_words(eagerly):
    own = {"nb_rollout_steps": 20, "nb_train_steps": 2, "batch_size": 8}
    config, loop = DDPGConfig(**own), LoopConfig(nb_epoch_cycles=2)  # Baselines' network
    one = train(Target(), config, loop, total_timesteps=40, seed=5, callback=None)
    other = learn("mlp", Target(), total_timesteps=40, seed=5, callback=None, **QUICK)
    for a, b in zip(one.nets.actor.get_weights(), other.nets.actor.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(one.nets.obs_stats.count) == pytest.approx(40.01)  # each observation once


@pytest.mark.parametrize(
    "env, options, message",
    [
        (Target, {"pairing": "same_member"}, "tell their robots"),
        (lambda: vector_of(Target(), Target()), {"pairing": "same_member"}, "tell their robots"),
        (lambda: ensemble_of(Corridor()), {"pairing": "same_member"}, "needs robots that return"),
        (lambda: [Target(), Target()], {"pairing": "coupled"}, "make it with envs.make_env"),
        (lambda: vector_of(Target(), Target()), {"pairing": "coupled"}, "cannot hold twins"),
        (lambda: ensemble_of(Corridor()), {"pairing": "coupled"}, "twins come in twos"),
        (lambda: pendulums(4), {"pairing": "coupled"}, "num_envs is 2 and there are 4"),
        (lambda: pendulums(1), {"critic": "q", "epopt_trajectories": 10}, "selects nothing"),
    ],
)
def test_environments_that_cannot_give_such_pairs_are_refused(env, options, message):
    made = env()
    num_envs = 2 if options.get("pairing") == "coupled" else getattr(made, "num_envs", 1)
    settings = split({"critic": "additive", "num_envs": num_envs} | options)
    with pytest.raises(ConfigError, match=message):
        train(made, *settings, total_timesteps=80)


@pytest.mark.parametrize(
    "steps, message", [(80, "leaves nothing to train on"), (-1, "must be at least 0, not -1")]
)
def test_random_steps_that_cannot_be_are_refused(steps, message):
    with pytest.raises(ConfigError, match=f"random_steps.*{message}"):
        train(Target(), DDPGConfig(), total_timesteps=80, random_steps=steps)
