"""The life of one run: settings, folder, checkpoints, logs, judging."""
