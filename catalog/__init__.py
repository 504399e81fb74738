"""Which datasets there are: one YAML card each, and the small code that loads, finds and checks cards."""

if __name__ != "wellkit.catalog":
    raise ImportError("import this package as wellkit.catalog, not as catalog")
