"""The settings of an agent, each defined once."""

from dataclasses import dataclass, field

from baselines_tf2.common.errors import check_types
from envs.errors import ConfigError, unknown
from omd_tf2.common.solver import SolverConfig

AGENTS = ("omd", "mle", "vaml", "sac")


@dataclass(frozen=True)
class HalfCheetahConfig:
    """Soft actor-critic in a learned model; the values given here are the original's."""

    # What the model is trained for: omd, the critic it makes; mle, prediction; vaml, the critic's
    # targets. sac has real data and no model.
    agent: str = "omd"
    gamma: float = 0.99
    tau: float = 0.005  # of the target critic, per critic step
    batch_size: int = 256
    replay_size: int = 1_000_000  # transitions
    cycle_steps: int = 1  # environment steps between calls of the learner, for as many updates
    outer_steps: int = 1  # whole updates per environment step, each on its own batch
    inner_steps: int = 1  # steps of critics, actor and temperature per model step
    inner_tol: float = 0.0  # fewer of them once the norm of the loss's gradient is below
    model_hidden_dim: int = 64  # the paper's misspecified model; 256 is as wide as the critics
    residual_model: bool = False  # predicts the change of the observation in place of the next one
    hidden_dim: int = 256  # of actor and critics
    model_lr: float = 3e-4
    critic_lr: float = 3e-4
    actor_lr: float = 3e-4
    temperature_lr: float = 3e-4
    init_temperature: float = 1.0
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self):
        check_types(self)
        if self.agent not in AGENTS:
            raise unknown("agent", self.agent, AGENTS)
        at_least_1 = (
            "batch_size replay_size cycle_steps outer_steps inner_steps model_hidden_dim hidden_dim"
        )
        for name in at_least_1.split():
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must lie in [0, 1], not {self.gamma}")
        if not 0 < self.tau <= 1:
            raise ConfigError(f"tau must lie in (0, 1], not {self.tau}")
        if self.agent != "omd" and self.solver != SolverConfig():
            raise ConfigError(f"agent '{self.agent}' solves no linear system: leave solver out")
        for name in ("model_lr", "model_hidden_dim", "residual_model"):
            if self.agent == "sac" and getattr(self, name) != getattr(HalfCheetahConfig, name):
                raise ConfigError(f"{name} means nothing to agent 'sac': leave it out")
        for name in ("model_lr", "critic_lr", "actor_lr", "temperature_lr", "init_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if not 0 <= self.inner_tol < float("inf"):
            raise ConfigError(f"inner_tol must be at least 0, not {self.inner_tol}")
