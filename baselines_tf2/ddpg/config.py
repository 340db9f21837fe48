"""Every setting of DDPG and its loop, each defined once; names are Baselines' where it has them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.noise import parse_noise
from baselines_tf2.common.replay import PAIRINGS
from baselines_tf2.common.train_loop import TrainConfig
from envs.errors import (
    ConfigError,
    Count,
    Natural,
    NonNegative,
    Positive,
    PositiveOrNone,
    PositiveShare,
    Share,
    check_fields,
)


class Critic(NamedTuple):
    """A head by its name; `heads.register` explains it."""

    make: Callable[["DDPGConfig"], Any]
    paired: bool
    points: int


CRITICS: dict[str, Critic] = {}  # by name; `heads.register` fills it


@dataclass(frozen=True)
class DDPGConfig:
    """DDPG's settings; the defaults are OpenAI Baselines'."""

    actor_network: MLPConfig = field(default_factory=MLPConfig)
    critic_network: MLPConfig = field(default_factory=MLPConfig)
    # q | concat | antisymmetric | additive (D(x, y)), or of `heads.register`
    critic: Annotated[str, CRITICS] = "q"
    pairing: Annotated[str, PAIRINGS] = "independent"  # what D's pairs share
    # The pair's members the actor is improved at.
    actor_loss: Annotated[str, ("first", "symmetric")] = "first"
    absorbing_fraction: PositiveShare = 0.1  # of D's pairs with the absorbing state, if targets ask
    # For Q: robot subtracts each robot's mean reward so far.
    reward_centering: Annotated[str, ("none", "robot")] = "none"
    # What Q is told of a row's robot.
    critic_sees: Annotated[str, ("nothing", "physics", "robot")] = "nothing"
    n_step: Count = 1  # length of the return before the bootstrap, steps
    gamma: Share = 0.99  # discount
    tau: PositiveShare = 0.01  # step of the target networks; 1 makes them the online ones
    batch_size: Count = 64  # transitions per update; a difference critic sees half as many pairs
    actor_lr: Positive = 1e-4
    critic_lr: Positive = 1e-3
    critic_optimizer: Annotated[str, ("adam", "sgd")] = "adam"
    critic_l2_reg: NonNegative = 1e-2  # on the critic's hidden kernels
    clip_norm: PositiveOrNone = None  # each network's largest gradient norm
    reward_scale: Positive = 1.0
    noise_type: str = "adaptive-param_0.2"  # comma list of none, normal_S, ou_S, adaptive-param_S
    param_noise_adaption_interval: Count = 50  # updates per adaptation, made before a cycle's
    normalize_observations: bool = True
    observation_range: Positive = 5.0  # normalised observations are clipped to +- this
    normalize_returns: bool = False
    popart: bool = False  # preserve the critic's outputs when the return's statistics move
    return_range: PositiveOrNone = None  # normalised returns are clipped to +- this, D to twice it
    nb_rollout_steps: Count = 100  # transitions per cycle, of all environments together
    nb_train_steps: Natural = 50  # updates per cycle
    replay_size: Count = 1_000_000  # transitions

    def __post_init__(self):
        check_fields(self)
        _, param_stddev = parse_noise(self.noise_type)
        _check_use(self, "absorbing_fraction", self.paired, "a difference critic")
        needs = "noise_type=adaptive-param_S"
        _check_use(self, "param_noise_adaption_interval", param_stddev, needs)
        needs = "normalize_observations"
        _check_use(self, "observation_range", self.normalize_observations, needs)
        values = (self.pairing, self.actor_loss) == ("independent", "first")
        message = f"pairing '{self.pairing}' with actor_loss '{self.actor_loss}' needs a difference"
        message += " critic: set agent.critic, or leave both at 'independent' and 'first'"
        _check(self.paired or values, message)
        remedies = (self.reward_centering, self.critic_sees) != ("none", "nothing")
        message = "reward_centering and critic_sees need the Q critic: leave them out, or critic=q"
        _check(not (self.paired and remedies), message)
        message = "reward_centering of windows of n_step > 1 needs gamma < 1"
        _check(self.reward_centering == "none" or self.n_step == 1 or self.gamma < 1, message)
        message = f"a difference critic needs an even batch_size, not {self.batch_size}"
        _check(not self.paired or self.batch_size % 2 == 0, message)
        _check(self.normalize_returns or not self.popart, "popart needs normalize_returns=True")
        held = f"replay_size {self.replay_size} does not hold"
        message = f"{held} one cycle's {self.nb_rollout_steps} transitions"
        _check(self.replay_size >= self.nb_rollout_steps, message)

    @property
    def paired(self) -> bool:
        """Whether the critic is a difference of values."""
        return CRITICS[self.critic].paired


@dataclass(frozen=True)
class LoopConfig:
    """How the loop around a DDPG agent steps, stores and logs."""

    num_envs: Count = 1  # environments stepped together
    overlap: bool = False  # train in a second thread while stepping, the policy a cycle old
    nb_epoch_cycles: Count = 20  # cycles between two rows of the log
    epopt_trajectories: Natural = 0  # N: of every N episodes store the worst; 0 stores all
    epopt_epsilon: float = 0.1  # the share of them that is stored, once warmed up
    # Share of the run whose episodes are all stored.
    epopt_warmup: Annotated[float, "lie in [0, 1)"] = 0.3

    def __post_init__(self):
        check_fields(self)
        wanted, epsilon = self.epopt_trajectories, self.epopt_epsilon
        for name in ("epopt_epsilon", "epopt_warmup"):
            _check_use(self, name, wanted, "epopt_trajectories")
        message = "epopt_trajectories takes one environment's episodes: num_envs=1, not"
        _check(not wanted or self.num_envs == 1, f"{message} {self.num_envs}")
        message = f"epopt_epsilon must lie in (0, 1), not {epsilon}: 1 selects all"
        _check(0 < epsilon < 1, message)
        stored = wanted * epsilon
        message = "epopt_trajectories * epopt_epsilon episodes must be a whole number"
        message += f": {wanted} * {epsilon:g} = {stored:g}"
        _check(abs(stored - round(stored)) < 1e-9, message)


@dataclass(frozen=True)
class DDPGTrainConfig(LoopConfig, TrainConfig):
    """The loop of a run, how long it lasts and how it is judged."""

    def __post_init__(self):
        TrainConfig.__post_init__(self)
        LoopConfig.__post_init__(self)


def check_envs(config: DDPGConfig, num_envs: int) -> None:
    """ConfigError unless so many environments can share a cycle, and hold the pairs' twins."""
    message = f"pairing 'coupled' steps twins: num_envs must be even, as 2, not {num_envs}"
    _check(config.pairing != "coupled" or num_envs % 2 == 0, message)
    message = f"nb_rollout_steps={config.nb_rollout_steps} is of all environments"
    message += f": num_envs={num_envs} must divide it"
    _check(config.nb_rollout_steps % num_envs == 0, message)


def _check_use(config, name, used, needs):
    if not used and getattr(config, name) != getattr(type(config), name):
        raise ConfigError(f"{name} does nothing without {needs}: leave it out, or set that")


def _check(holds, message):
    if not holds:
        raise ConfigError(message)
