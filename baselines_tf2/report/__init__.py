"""A page on finished runs, from their folders alone."""
