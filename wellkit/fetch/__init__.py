"""Bytes to disk: a pure plan, then the transfer, then the check."""
