"""Batches, prefetch, resume state; the thin torch and JAX adapters."""
