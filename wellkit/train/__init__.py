"""The thin trainer."""
