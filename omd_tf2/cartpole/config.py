"""The settings of an agent, each defined once."""

from dataclasses import dataclass, field
from typing import Annotated

from envs.errors import ConfigError, Count, NonNegative, Positive, PositiveShare, Share
from omd_tf2.common.solver import SolverConfig, check_agent

OF_MODELS = "prob_model no_learn_reward lr model_hidden_dim residual_model"
HEEDED = {  # agent -> the options that it heeds, of those that not all do
    "omd": f"{OF_MODELS} no_warm warm_opt",
    "mle": f"{OF_MODELS} model_steps one_batch",
    "vep": f"{OF_MODELS} model_steps one_batch value_gain",
    "vaml": f"{OF_MODELS} model_steps one_batch",
    "qlearning": "one_batch",
}
AGENTS = tuple(HEEDED)


@dataclass(frozen=True)
class CartPoleConfig:
    """Soft Q-learning in a learned model; the values given here are the original's."""

    # What the model is trained for: omd, the critic it makes; mle, prediction; vep, the values that
    # 5 random functions give; vaml, the critic's targets. qlearning has real data and no model.
    agent: Annotated[str, AGENTS] = "omd"
    gamma: Share = 0.99
    alpha: Positive = 0.01  # temperature of the soft maximum and of the policy
    tau: PositiveShare = 0.01  # of the target critics, per critic step
    epsilon: Share = 0.1  # share of uniform actions while exploring
    batch_size: Count = 256
    replay_size: Count = 200_000  # transitions
    cycle_steps: Count = 1  # environment steps between calls of the learner, for as many updates
    inner_steps: Count = 1  # critic steps per update
    one_batch: bool = False  # for all of them, as omd has it, in place of one for each
    model_steps: Count = 1  # per update, each on a batch of its own; not of omd
    inner_tol: NonNegative = 0.0  # fewer critic steps once the norm of the loss's gradient is below
    model_hidden_dim: Count = 32  # of both layers of the model's networks; few misspecify it
    residual_model: bool = False  # predicts the change of the observation in place of the next one
    hidden_dim: Count = 32  # of the layers of the critics, and of vep's value functions
    value_gain: Positive = 1e-2  # of the outputs of vep's functions: weighs them against the reward
    greedy: bool = False  # judged by the best action, as `hard` is, not by softmax(Q / alpha)
    lr: Positive = 1e-3  # of the model
    inner_lr: Positive = 3e-4  # of the critics
    hard: bool = False  # max in place of alpha logsumexp(Q / alpha), and the best action
    no_double: bool = False  # one critic in place of the lower of two
    prob_model: bool = False  # the next observation is Gaussian, drawn
    no_learn_reward: bool = False  # the real rewards in place of the model's
    no_warm: bool = False  # omd draws its critics, and their target, anew at each outer step
    warm_opt: bool = False  # omd's inner Adam goes on, in place of a fresh one at each outer step
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self):
        check_agent(self, HEEDED)
        if self.hard and self.alpha != CartPoleConfig.alpha:
            raise ConfigError("alpha means nothing to a hard maximum: leave one of them out")
