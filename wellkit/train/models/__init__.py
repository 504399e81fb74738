"""Surrogate models and baselines."""
