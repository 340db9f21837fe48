"""Optimal model design on a two-state MDP, where every part of it is solved exactly.

Reproduces the three tabular analyses of Nikishin et al. (arXiv 2106.03273). All the
settings and seeds of an analysis are N instances of the same small problem, trained in one batch:
arrays carry the axes of the MDP first and the instances last, `[S, A, N]`, so that every operation
is elementwise over the instances.
"""

from omd_tf2.tabular.experiments import EXPERIMENTS

__all__ = ["EXPERIMENTS"]
