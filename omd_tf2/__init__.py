"""Optimal model design: learn a model of the world by the value function that it implies.

The model's parameters are improved through the optimality condition of the inner problem, by
implicit differentiation (Nikishin et al., arXiv 2106.03273). `omd_tf2.implicit` holds that
machinery and serves any other bilevel problem as well.
"""
