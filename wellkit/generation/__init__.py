"""Solvers that write Well-format datasets of their own, seeded and with their provenance."""
