"""Scores that can be trusted, and the table they stand in."""
