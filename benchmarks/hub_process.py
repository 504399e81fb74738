"""A loopback Hub in a process of its own, as far away as one likes: latency, bandwidth of each connection, faults.

    python hub_process.py LATENCY BANDWIDTH REPOSITORY=FOLDER [REPOSITORY=FOLDER ...]

Prints its address; then answers lines of JSON on standard input: {"do": "count"} gives what was asked and sent since
the last count, {"do": "pace", "latency": s, "bandwidth": bytes/s} sets both, {"do": "fail", "every": n} lets every
n-th request for contents fail, in turn with 503, with a reset and with a truncated body; 0 lets none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve()


class HubProcess:
    """The process, from outside. Use as a context manager.

    Attributes:
        url: what `HF_ENDPOINT` has to be.
    """

    def __init__(self, repositories: Mapping[str, Path], *, latency: float, bandwidth: float) -> None:
        named = [f"{name}={folder}" for name, folder in repositories.items()]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), str(latency), str(bandwidth), *named],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the loopback Hub did not start")

    def ask(self, **command: Any) -> Any:
        """One command and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(latency: float, bandwidth: float, repositories: Mapping[str, Path]) -> None:
    """Serve until standard input ends."""
    from tests.hub.faults import in_turn, truncated, unavailable
    from tests.hub.server import LoopbackHub

    with LoopbackHub(latency=latency, rate=bandwidth) as hub:
        for name, folder in repositories.items():
            hub.add(name, folder)
        changes = in_turn(unavailable(503, None), truncated(1000, reset=True), truncated(1000))
        failing = hub.fault(changes, server="store", times=0)
        print(hub.url, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            answer: dict[str, Any] = {}
            if command["do"] == "count":
                asked = list(hub.requests)
                hub.requests.clear()
                answer = {"requests": len(asked), "bytes": sum(request.sent for request in asked)}
            elif command["do"] == "pace":
                hub.latency, hub.rate = command["latency"], command["bandwidth"]
            else:
                failing.every, failing.times = max(1, command["every"]), None if command["every"] else 0
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))  # for the tests' Hub
    pairs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    serve(float(sys.argv[1]), float(sys.argv[2]), {name: Path(folder) for name, folder in pairs.items()})
