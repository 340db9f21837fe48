"""OpenAI Baselines' DDPG in eager-mode TensorFlow 2, and the difference critic beside it."""
