"""What a dataset, a field, a grid, a split, a source, a statistic, an erratum, a run and a score ARE."""

if __name__ != "wellkit.schemas":
    raise ImportError("import this package as wellkit.schemas, not as schemas")
