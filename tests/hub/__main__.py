"""A loopback Hub in a process of its own: `python -m tests.hub FOLDER [--latency 0.05] [--rate 50e6]`.

Prints its address, for `HF_ENDPOINT`, and serves until it is interrupted or its standard input ends. FOLDER is a
dataset, or holds one folder for each. `GET /-/traffic` at the address tells requests and bytes since it was last asked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.hub.faults import in_turn, truncated, unavailable
from tests.hub.server import LoopbackHub


def main(arguments: list[str] | None = None) -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--owner", default="polymathic-ai", help="of the repositories, which are named as the folders")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="of each request")
    parser.add_argument("--rate", type=float, metavar="BYTES", help="a second of each connection")
    parser.add_argument("--link-life", type=int, default=3600, metavar="SECONDS", help="of signed links to the store")
    parser.add_argument(
        "--fail-every", type=int, metavar="N", help="every n-th request to the store: 503, reset, truncation in turn"
    )
    given = parser.parse_args(arguments)
    with LoopbackHub(latency=given.latency, rate=given.rate) as hub:
        hub.links.life = given.link_life
        if given.fail_every:
            changes = in_turn(unavailable(503, None), truncated(1000, reset=True), truncated(1000))
            hub.fault(changes, server="store", every=given.fail_every)
        folders = [given.folder]
        if not (given.folder / "data").is_dir():
            folders = sorted(path for path in given.folder.iterdir() if path.is_dir())
        for folder in folders:
            hub.add(f"{given.owner}/{folder.resolve().name}", folder)
        sys.stdout.write(f"{hub.url}\n")
        sys.stdout.flush()
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
