"""The settings of an agent, each defined once."""

from dataclasses import dataclass, field
from typing import Annotated

from envs.errors import Count, NonNegative, Positive, PositiveShare, Share
from omd_tf2.common.solver import SolverConfig, check_agent

OF_MODELS = "model_lr model_hidden_dim residual_model"
HEEDED = {"omd": OF_MODELS, "mle": OF_MODELS, "vaml": OF_MODELS, "sac": ""}  # not by all
AGENTS = tuple(HEEDED)


@dataclass(frozen=True)
class HalfCheetahConfig:
    """Soft actor-critic in a learned model; the values given here are the original's."""

    # What the model is trained for: omd, the critic it makes; mle, prediction; vaml, the critic's
    # targets. sac has real data and no model.
    agent: Annotated[str, AGENTS] = "omd"
    gamma: Share = 0.99
    tau: PositiveShare = 0.005  # of the target critic, per critic step
    batch_size: Count = 256
    replay_size: Count = 1_000_000  # transitions
    cycle_steps: Count = 1  # environment steps between calls of the learner, for as many updates
    outer_steps: Count = 1  # whole updates per environment step, each on its own batch
    inner_steps: Count = 1  # steps of critics, actor and temperature per model step
    inner_tol: NonNegative = 0.0  # fewer of them once the norm of the loss's gradient is below
    model_hidden_dim: Count = 64  # the paper's misspecified model; 256 is as wide as the critics
    residual_model: bool = False  # predicts the change of the observation in place of the next one
    hidden_dim: Count = 256  # of actor and critics
    model_lr: Positive = 3e-4
    critic_lr: Positive = 3e-4
    actor_lr: Positive = 3e-4
    temperature_lr: Positive = 3e-4
    init_temperature: Positive = 1.0
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self):
        check_agent(self, HEEDED)
