"""Deep deterministic policy gradients, with a critic of values or of differences of values."""

from baselines_tf2.ddpg.config import DDPGConfig, LoopConfig
from baselines_tf2.ddpg.learn import learn, train
