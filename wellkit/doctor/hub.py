"""Whether the Hub answers, and as whom it knows us. The token is sent to the Hub and shown nowhere."""

from __future__ import annotations

import queue
import threading

from huggingface_hub import get_session, get_token

from wellkit.doctor.finding import Finding
from wellkit.errors import WellkitError
from wellkit.fetch.hub import HubSource
from wellkit.settings import hub_endpoint, hub_offline
from wellkit.storage import explain, host_of, without_secrets

SECTION = "Hub"
_LOGIN = "log in anew: hf auth login (or set HF_TOKEN)"


def examine_hub(seconds: float) -> list[Finding]:
    """Ask the Hub who we are, for at most `seconds`."""
    endpoint = without_secrets(hub_endpoint())
    if hub_offline():
        return [
            Finding(SECTION, "reachable", "note", f"not asked: HF_HUB_OFFLINE is set ({endpoint})"),
        ]
    answers: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
    # A name server that does not answer holds a connection up longer than any timeout of the client: the thread is left
    # behind, and ends with the process.
    threading.Thread(target=lambda: answers.put(_ask(endpoint, seconds)), name="wellkit-doctor", daemon=True).start()
    try:
        return answers.get(timeout=seconds + 1)
    except queue.Empty:
        return [_unreachable(endpoint, f"no answer in {seconds:g} s")]


def _ask(endpoint: str, seconds: float) -> list[Finding]:
    source = HubSource("wellkit/doctor")
    address = f"{source.endpoint}/api/whoami-v2"
    try:
        headers = source.headers(address)
        answer = get_session().get(address, headers=headers, timeout=seconds, follow_redirects=False)
        status = answer.status_code
        content = answer.json() if status == 200 else None
    except Exception as error:
        told = error if isinstance(error, WellkitError) else explain(error, host_of(source.endpoint))
        return [_unreachable(endpoint, str(told) if told is not None else type(error).__name__)]
    if status not in (200, 401, 403):
        return [_unreachable(endpoint, f"status {status}")]
    reached = Finding(SECTION, "reachable", "ok", endpoint)
    if status == 200:
        name = content.get("name") if isinstance(content, dict) else None
        if not isinstance(name, str):
            return [_unreachable(endpoint, "the answer is not the Hub's")]
        return [reached, Finding(SECTION, "identity", "ok", name)]
    if "Authorization" in headers:
        return [reached, Finding(SECTION, "identity", "broken", f"the token is refused (status {status})", _LOGIN)]
    value = "a token is set, but not used" if get_token() else "nobody: no token is set; public datasets need none"
    return [reached, Finding(SECTION, "identity", "ok", value)]


def _unreachable(endpoint: str, reason: str) -> Finding:
    return Finding(
        SECTION,
        "reachable",
        "warning",
        f"{endpoint}: {reason}",
        "check the network, proxies and HF_ENDPOINT; HF_HUB_OFFLINE=1 keeps wellkit to what is on disk",
    )
