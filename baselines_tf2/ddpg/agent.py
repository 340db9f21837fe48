"""The DDPG agent: what explores, stores, trains, acts and is saved."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from baselines_tf2.common.acting import ActorPolicy
from baselines_tf2.common.compile import compile_updates, compiled
from baselines_tf2.common.errors import check_finite
from baselines_tf2.common.files import read_arrays, write_arrays
from baselines_tf2.common.networks import Body, describe, numpy_forward, perturbable
from baselines_tf2.common.noise import action_distance, adapted_stddev, parse_noise, perturb
from baselines_tf2.common.replay import Layout, Replay, Rollout
from baselines_tf2.common.rollout import Policy
from baselines_tf2.common.spaces import as_observations
from baselines_tf2.common.state import Stateful
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.diagnostics import flat_actor_gradient, signal_to_noise, target_diagnostics
from baselines_tf2.ddpg.heads import critic_input_dim, make_head
from baselines_tf2.ddpg.networks import Nets
from baselines_tf2.ddpg.robots import NOTHING, Robots, Sight
from baselines_tf2.ddpg.update import Metrics, ddpg_update
from envs.errors import ConfigError

DIAGNOSTIC_ROBOTS, DIAGNOSTIC_ROWS, DIAGNOSTIC_BATCHES = 32, 64, 16
DIAGNOSTIC_WINDOW = 50_000  # latest transitions
# Settings that give weights their meaning, beyond their shapes.
FITS = ("critic", "critic_sees", "reward_centering", "reward_scale", "observation_range",
        "critic_optimizer")  # fmt: skip
BESIDE_VARIABLES = MEANING, STDDEV = "fits", "param_noise/stddev"  # in a file of weights
REFERENCE_ROWS = 64  # Baselines' reference batch is one minibatch of its default size


class DDPGAgent(Stateful):
    """DDPG with a critic head of choice; randomness comes from generators spawned from the seed."""

    STATE = ("_stddev", "_reference", "_robots")  # beside networks and generators

    def __init__(
        self,
        config: DDPGConfig,
        obs_dim: int,
        action_dim: int,
        *,
        seed: int | None = None,
        dtype: str = "float32",
        num_envs: int = 1,
        body: Body | None = None,
        sight: Sight = NOTHING,
    ):
        """num_envs: that are stepped together. sight: what `critic_sees` names, of `make_sight`."""
        self.config, self._dtype = config, dtype
        robot_dim = len(sight.unknown)
        *seeds, for_nets = np.random.SeedSequence(seed).spawn(5)
        purposes = ("batches", "perturbation", "adaptation", "diagnostics")
        generators = map(np.random.default_rng, seeds)
        self._rngs = dict(zip(purposes, generators, strict=True))
        self.head = make_head(config)
        dims = obs_dim, action_dim, critic_input_dim(config, obs_dim, action_dim, robot_dim)
        nets_seed = int(for_nets.generate_state(1)[0])
        self.nets = Nets(config, *dims, seed=nets_seed, dtype=dtype, body=body)
        # Of the parameter noise, if there is any: its stddev, and the distance that it is to make.
        self.action_noises, self._stddev = parse_noise(config.noise_type)
        self._desired_distance = self._stddev or 0.0
        # One environment keeps its perturbed actor to the episode's end, as in Baselines.
        self.refresh_each_cycle = self._stddev is None or num_envs > 1
        self._forward = numpy_forward(self.nets.actor)
        self._perturbable = perturbable(self.nets.actor)
        self._layout = Layout(obs_dim, action_dim, robot_dim)
        self._robots = Robots(config, self._layout, sight, dtype)
        self.meet = self._robots.meet
        self.replay = Replay(
            obs_dim,
            action_dim,
            capacity=config.replay_size,
            gamma=config.gamma,
            num_envs=num_envs,
            n_step=config.n_step,
            pairing=config.pairing,
            absorbing_fraction=config.absorbing_fraction,
            dtype=dtype,
        )
        self._updates = compile_updates(self._update, len(Metrics._fields), dtype)
        self._values = compiled(self._evaluate_values)
        self._diagnose = compiled(self._compute_diagnostics)
        self._reference: np.ndarray | None = None

    def policy(self) -> Policy:
        """The actor as it is now, as a NumPy function of observations [N, O]."""
        return self._policy_of(self.nets.actor.get_weights())

    def exploring_policy(self) -> Callable[[], Policy]:
        """A function that gives the policy for a new episode, perturbed if parameters are."""
        if self._stddev is None:
            fixed = self.policy()
            return lambda: fixed
        perturbed = self._perturbed("perturbation", self._stddev)
        return lambda: self._policy_of(perturbed())

    def _perturbed(self, purpose, stddev):
        """Draws weights. Of copies: another thread may meanwhile train the actor."""
        rng, weights = self._rngs[purpose], self.nets.actor.get_weights()
        return partial(perturb, rng, stddev, weights, self._perturbable)

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] for observations [..., O], without exploration.

        Raises ConfigError for observations of another length.
        """
        return self.policy()(as_observations(obs, self._layout.obs_dim))

    def step(self, obs: np.ndarray) -> tuple:
        """Baselines' call: (actions, q, None, None), q the critic's value of those actions.

        obs: [O] or [B, O]; actions: [B, A] in [-1, 1], for the caller to scale. See `values` in
        `heads.py` for what q means to a difference critic. Whose robots they are is not known
        here: a critic that sees robots is given the middle of them all.
        """
        obs = np.atleast_2d(as_observations(obs, self._layout.obs_dim)).astype(self._dtype)
        actions = self.predict(obs)
        q = self._values(obs, actions, self._robots.unknown(len(obs)))
        return actions, q.numpy(), None, None

    def _policy_of(self, weights):
        stats, clip = self.nets.obs_stats, self.config.observation_range
        moments = None if stats is None else stats.numpy()
        return ActorPolicy(self._forward, weights, moments, clip, self._dtype)

    def can_train(self) -> bool:
        """Whether there is anything to sample, and anything to do with it."""
        return len(self.replay) > 0 and self.config.nb_train_steps > 0

    def store(self, new: Rollout) -> None:
        """Adds transitions to the replay and their observations to the normaliser."""
        if self.config.reward_scale != 1:
            new = new._replace(rewards=new.rewards * self.config.reward_scale)
        self.replay.add(new)
        self._robots.add(new.members, new.rewards)
        if self.nets.obs_stats is not None:
            self.nets.obs_stats.update_on_host(new.obs0.reshape(-1, new.obs0.shape[-1]))

    def _adapt_noise(self, stddev):
        """Adapts the parameter noise to the actor as it is, for the cycle's updates; its metrics.

        As in Baselines the distance of a second perturbed copy, on one batch, moves the stddev,
        once for each `param_noise_adaption_interval` updates.
        """
        config, rng = self.config, self._rngs["adaptation"]
        distances = []
        for _ in range(-(-config.nb_train_steps // config.param_noise_adaption_interval)):
            rows = self.replay.sample_many(rng, 1, config.batch_size)[0]
            obs, weights = rows[:, self._layout.obs0], self._perturbed("adaptation", stddev)()
            distances.append(action_distance(self.policy()(obs), self._policy_of(weights)(obs)))
            stddev = adapted_stddev(stddev, distances[-1], self._desired_distance)
        self._stddev = stddev
        return {"param_noise/distance": float(np.mean(distances)), "param_noise/stddev": stddev}

    def train(self) -> dict[str, float]:
        """Adapts parameter noise and runs one cycle's updates in one call; the metrics' means.

        Raises TrainingError if one of them is not finite.
        """
        adapted = {} if self._stddev is None else self._adapt_noise(self._stddev)
        config, rng = self.config, self._rngs["batches"]
        count, size = config.nb_train_steps, config.batch_size
        rows = self.replay.sample_many(rng, count, size, paired=config.paired)
        means = self._updates(self._robots.complete(rows)).numpy()
        metrics = {f"train/{k}": float(x) for k, x in zip(Metrics._fields, means, strict=True)}
        check_finite(metrics | adapted)
        return metrics | adapted

    def _update(self, packed):
        return ddpg_update(self.nets, self.head, self._layout.unpack(packed), self.config)

    def statistics(self, latest: Rollout) -> dict[str, float]:
        """What Baselines logs of the critic and actor on a batch kept from the start, and on the
        latest transitions."""
        if self._reference is None:
            size = min(REFERENCE_ROWS, len(self.replay))
            drawn = self.replay.sample_many(self._rngs["diagnostics"], 1, size)[0]
            self._reference = self._robots.complete(drawn)
        layout, policy = self._layout, self.policy()
        columns = layout.obs0, layout.actions, layout.robots
        obs, actions, robots = (self._reference[:, x] for x in columns)
        out = _moments("reference/action", policy(obs))
        # Differences alone have no level: that takes pairs with the absorbing state.
        if not self.config.paired or self.replay.absorbing_reachable:
            out |= _moments("reference/q", self._values(obs, actions, robots).numpy())
            out |= _moments("reference/actor_q", self._values(obs, policy(obs), robots).numpy())
            seen = latest.obs0, latest.actions, self._robots.features(latest.members)
            flat = (x.reshape(latest.rewards.size, x.shape[-1]) for x in seen)
            out["rollout/q_mean"] = float(self._values(*flat).numpy().mean())
        if self._stddev is not None:
            perturbed = self._perturbed("diagnostics", self._stddev)
            out |= _moments("reference/perturbed_action", self._policy_of(perturbed())(obs))
        out |= _moments("rollout/action", latest.actions)
        for name in ("obs_stats", "return_stats"):
            stats = getattr(self.nets, name)
            if stats is not None:
                mean, std = stats.numpy()
                out |= {f"{name}/mean": float(mean.mean()), f"{name}/std": float(std.mean())}
        return out

    def diagnostics(self) -> dict[str, float]:
        """The learning signals that `diagnostics.py` compares, once something is stored."""
        size, paired, rng = self.config.batch_size, self.config.paired, self._rngs["diagnostics"]
        shape = DIAGNOSTIC_ROBOTS, DIAGNOSTIC_ROWS
        groups = self.replay.sample_members(rng, *shape, paired=paired, window=DIAGNOSTIC_WINDOW)
        batches = self.replay.sample_many(rng, DIAGNOSTIC_BATCHES, size, paired=paired)
        out = self._diagnose(self._robots.complete(groups), self._robots.complete(batches))
        return {f"diagnostics/{name}": float(value) for name, value in out.items()}

    def _compute_diagnostics(self, groups, batches):
        nets, head, unpack = self.nets, self.head, self._layout.unpack
        out = target_diagnostics(nets, head, unpack(groups), DIAGNOSTIC_ROBOTS)
        gradients = tf.map_fn(lambda b: flat_actor_gradient(nets, head, unpack(b)), batches)
        return out | {"actor_gradient_snr": signal_to_noise(gradients)}

    def _evaluate_values(self, obs, actions, robots):
        return self.head.values(self.nets, self.nets.normalise_obs(obs), actions, robots)

    def get_state(self) -> dict:
        """All that coming cycles depend on, but for the replay."""
        return super().get_state() | {
            "variables": self._arrays(),
            "rngs": [rng.bit_generator.state for rng in self._rngs.values()],
        }

    def set_state(self, state: Mapping) -> None:
        """Puts back what `get_state` gave."""
        super().set_state(state)
        self._assign(state["variables"])
        for rng, own in zip(self._rngs.values(), state["rngs"], strict=True):
            rng.bit_generator.state = own

    def save(self, path: str | Path) -> None:
        """Writes networks, targets, optimisers and normalisers to one .npz, with what they fit."""
        arrays = self._arrays()
        arrays[MEANING] = np.array(json.dumps(self._fits()))
        if self._stddev is not None:
            arrays[STDDEV] = np.asarray(self._stddev)
        write_arrays(path, arrays)

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit this agent."""
        arrays = read_arrays(path)
        self._check_fits(path, arrays)
        self._assign(arrays)
        if self._stddev is not None and STDDEV in arrays:
            self._stddev = float(arrays[STDDEV])

    def _arrays(self):
        return {name: np.array(variable) for name, variable in self.nets.state().items()}

    def _assign(self, arrays):
        for name, variable in self.nets.state().items():
            variable.assign(arrays[name])

    def _fits(self):
        fits = {name: getattr(self.config, name) for name in FITS}
        networks = {"actor": self.nets.actor, "critic_network": self.nets.critic}
        return fits | {name: describe(network) for name, network in networks.items()}

    def _check_fits(self, path, arrays):
        other = f"{path} was saved by an agent with other settings"
        saved = json.loads(str(arrays[MEANING])) if MEANING in arrays else {}
        for name, value in self._fits().items():
            if value != saved.get(name):
                raise ConfigError(f"{other}: {name} is {value}, saved was {saved.get(name)}")
        found = {name: x.shape for name, x in arrays.items() if name not in BESIDE_VARIABLES}
        shapes = {name: tuple(variable.shape) for name, variable in self.nets.state().items()}
        if different := found.items() ^ shapes.items():
            raise ConfigError(f"{other}: {min(different)[0]} does not match")


def _moments(name: str, x: np.ndarray) -> dict[str, float]:
    return {f"{name}_mean": float(x.mean()), f"{name}_std": float(x.std())}
