"""OMD on CartPole (2106.03273, section 5.2): soft Q-learning inside a learned model."""
