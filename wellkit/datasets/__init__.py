"""Map-style datasets, NumPy inside."""
