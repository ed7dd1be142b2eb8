"""Several hosts on one machine: network namespaces on a switch, each with its own address and a slow line out."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from machines import lacks, need, need_root

Process = subprocess.Popen[bytes]
STOP_SECONDS = 20


class Hosts:
    """Hosts of one switch, by the names of their namespaces; host i has the address 10.77.0.(10 + i)."""

    def __init__(self, number: int, rate: str) -> None:
        unique = f"rfmdist-{secrets.token_hex(4)}"
        self._rate = rate
        self._switch, self._names = f"{unique}-switch", [f"{unique}-h{i}" for i in range(number)]
        self._started: list[Process] = []

    def address(self, host: int) -> str:
        """Address that the other hosts reach a host at."""
        return f"10.77.0.{10 + host}"

    def run(self, host: int, command: list[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end."""
        inside = ["ip", "netns", "exec", self._names[host], *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout, **options)

    def start(self, host: int, command: list[str], log: Path, environment: Mapping[str, str]) -> Process:
        """Start a command on a host; it ends with the hosts at the latest."""
        inside = ["ip", "netns", "exec", self._names[host], *command]
        with log.open("wb") as file:
            self._started.append(subprocess.Popen(inside, stdout=file, stderr=subprocess.STDOUT, env=environment))
        return self._started[-1]

    def cut_off(self, host: int) -> None:
        """Pull a host's line out of the switch: it runs on, but nothing comes or goes."""
        _ip("-n", self._switch, "link", "set", f"socket{host}", "down")

    def bytes_sent(self) -> list[int]:
        """Bytes that each host has sent so far, headers included."""
        shown = [_ip("-n", name, "-s", "-j", "link", "show", "line") for name in self._names]
        return [json.loads(text)[0]["stats64"]["tx"]["bytes"] for text in shown]

    def plug_in(self) -> None:
        """Make the switch, and hosts whose lines carry ``rate`` outwards."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        for i, name in enumerate(self._names):
            socket = f"socket{i}"
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("link", "add", "line", "netns", name, "type", "veth", "peer", "name", socket, "netns", self._switch)
            _ip("-n", self._switch, "link", "set", socket, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{self.address(i)}/24", "dev", "line")
            _ip("-n", name, "link", "set", "line", "up")
            shaped = ["tc", "-n", name, "qdisc", "add", "dev", "line", "root", "tbf"]
            _run([*shaped, "rate", self._rate, "burst", "256kb", "latency", "50ms"])

    def unplug(self) -> None:
        """End what runs on the hosts and take them away, however far they came."""
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        for name in [*self._names, self._switch]:
            with contextlib.suppress(OSError):  # never made
                for left in _ip("netns", "pids", name).split():
                    os.kill(int(left), signal.SIGKILL)
                _ip("netns", "del", name)
        for process in self._started:
            process.wait(STOP_SECONDS)


@contextlib.contextmanager
def hosts(number: int, rate: str) -> Iterator[Hosts]:
    """Give so many hosts, or skip the test where a machine does not let us make them."""
    need("ip", "tc", packages="iproute2")
    need_root("a network namespace")
    made = Hosts(number, rate)
    try:
        try:
            made.plug_in()
        except OSError as error:
            lacks(f"network namespaces cannot be made here: {error}")
        yield made
    finally:
        made.unplug()


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
