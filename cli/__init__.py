"""The command line: commands only parse, call the public API, and print."""

if __name__ != "wellkit.cli":
    raise ImportError("import this package as wellkit.cli, not as cli")
