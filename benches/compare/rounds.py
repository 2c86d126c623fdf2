"""The loads, and the rounds in which every proxy gets them."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

import calls
import hostnames
from proxies import (
    BUILT,
    HOST,
    PROXIES,
    ROOT,
    NotStarted,
    Proxy,
    Running,
    Stage,
    is_taken,
    knows_terminate,
)

PROGRAM = BUILT / "release/load"
WORKERS = 2
# How much longer than asked a load may take, its warm-up included.
GRACE = 60
# The part of a load that may fail, or its figures are not of the same work.
MOST_FAILED = 0.001
# What the load says of a proxy that does not know the key exchange of this load, and nothing else.
OTHER_KEY_EXCHANGE = "other_key_exchange"
# What a proxy gets to come to rest after its start, and another before that is measured.
REST = 0.5
# The captured hello of tests/corpus, and the name in it.
HELLO, NAME = ROOT / "tests/corpus/hello/go-alpn.bin", b"www.example.com"


@dataclass
class Load:
    # The server that it is about.
    server: str
    # The command of the load program, and its flags.
    command: list[str]
    # Whether the CPU for each unit is a figure. That is steady only with the proxy alone on a core.
    pinned: bool = False
    # Whether there are figures that take a proxy with two workers, wherever the kernel puts them.
    free: bool = False
    # Whether a stream from the server `get` runs beside it.
    stream: bool = False
    # Whether it is the same in every round, so that one will do.
    once: bool = False
    # The key of the certificate with which the proxy serves TLS; where there is none, it passes TLS
    # through.
    key: str | None = None

    def within_tls(self, key_exchange: str = "x25519", key: str = "p256") -> "Load":
        """The same where the proxy serves TLS."""
        return replace(self, command=[*self.command, f"--tls={key_exchange}"], key=key)


LOADS = {
    "bulk1": Load("get", ["bulk", "--streams=1"], pinned=True),
    "bulk16": Load("get", ["bulk", "--streams=16"], pinned=True, free=True),
    "bulk16up": Load("put", ["bulk", "--streams=16", "--up"], pinned=True),
    "conn": Load("ask", ["conn", "--at-once=64"], pinned=True, free=True),
    "log": Load("ask", ["conn", "--at-once=64"], pinned=True),
    "ping1": Load("ask", ["ping", "--at-once=1"], pinned=True),
    "ping64": Load("ask", ["ping", "--at-once=64"], pinned=True, free=True),
    "mix": Load("ask", ["ping", "--at-once=64"], free=True, stream=True),
    "mix1g": Load("ask", ["ping", "--at-once=64", "--stream-gbit-s=1"], free=True, stream=True),
    "idle": Load("ask", ["idle"], free=True),
    "half-close": Load("ask", ["half-close"], free=True, once=True),
    "hostnames": Load("ask", ["ping", "--at-once=64"], free=True, once=True),
}
# What is measured of handshakes is the CPU, not how many come at once.
HANDSHAKES = Load("ask", ["conn", "--at-once=16"], pinned=True)
LOADS |= {
    "tls-mlkem": HANDSHAKES.within_tls("mlkem"),
    "tls-x25519": HANDSHAKES.within_tls(),
    "tls-rsa": HANDSHAKES.within_tls(key="rsa2048"),
    "tls-resumed": Load("ask", [*HANDSHAKES.command, "--resumes"], pinned=True).within_tls(),
    "tls-bulk1": LOADS["bulk1"].within_tls(),
    "tls-bulk1up": Load("put", ["bulk", "--streams=1", "--up"], pinned=True).within_tls(),
    "tls-bulk16": Load("get", ["bulk", "--streams=16"], pinned=True).within_tls(),
    "tls-bulk16up": LOADS["bulk16up"].within_tls(),
    "tls-ping1": LOADS["ping1"].within_tls(),
    "tls-ping64": Load("ask", ["ping", "--at-once=64"], pinned=True).within_tls(),
    "tls-idle": LOADS["idle"].within_tls(),
}
# By what the proxy does.
GROUPS = {
    "passthrough": [name for name, load in LOADS.items() if not load.key],
    "tls": [name for name, load in LOADS.items() if load.key],
}


class Comparison:
    """Runs the rounds and keeps what they came to."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.port = free_port()
        # Pinned or not, by load and proxy: the figures of each round.
        self.results: dict[str, dict[str, dict[str, list[dict]]]] = {"pinned": {}, "free": {}}
        self.failures: list[str] = []
        self.servers = {"ask": HOST, "get": HOST, "put": HOST}
        self.earlier_serves_tls = bool(options.against) and knows_terminate(options.against)
        if options.against and not self.earlier_serves_tls:
            tell(f"without TLS of {options.against}: it lacks --terminate")
        self.proxies = {name: PROXIES[name] for name in options.only if self.may_run(PROXIES[name])}

    def may_run(self, proxy: Proxy) -> bool:
        if proxy.earlier and not self.options.against:
            return False
        with self.stage(proxy, "ask", None) as stage:
            missing = proxy.command and proxy.command(stage) is None
        other_user = proxy.uid is not None and (os.getuid() != 0 or self.options.uid is not None)
        if missing or other_user:
            tell(f"without {proxy.title}: " + ("not installed" if missing else "not as this user"))
        return not missing and not other_user

    def run(self) -> None:
        if self.options.pin != "no":
            with a_core_apart() as core:
                self.run_group("pinned", {core})
        if self.options.pin != "yes":
            self.run_group("free", None)

    def run_group(self, group: str, cpus: set[int] | None) -> None:
        loads = [name for name in self.options.loads if getattr(LOADS[name], group)]
        with servers() as self.servers:
            for number in range(self.options.rounds):
                for name in loads:
                    if number > 0 and LOADS[name].once:
                        continue
                    tell(f"{group}, round {number + 1} of {self.options.rounds}: {name}")
                    for key, proxy in self.shuffled(f"{number} {name}"):
                        # Without a proxy there is none to measure the CPU of.
                        measured = proxy.command or not cpus
                        if measured and self.takes(proxy, name):
                            by_proxy = self.results[group].setdefault(name, {})
                            by_proxy.setdefault(key, []).append(self.measure(proxy, name, cpus))

    def takes(self, proxy: Proxy, name: str) -> bool:
        load = LOADS[name]
        if load.key and proxy.earlier and not self.earlier_serves_tls:
            return False
        return proxy.takes(name, load.stream, tls=load.key is not None)

    def shuffled(self, seed: str) -> list[tuple[str, Proxy]]:
        """In another order each time, for whoever is measured finds the machine as the one before has
        left it; but in the same one when all is measured again."""
        order = list(self.proxies.items())
        random.Random(seed).shuffle(order)
        return order

    def measure(self, proxy: Proxy, name: str, cpus: set[int] | None) -> dict[str, float]:
        """The figures of one round; none, if it failed."""
        load = LOADS[name]
        try:
            with self.stage(proxy, load.server, cpus, load.key) as stage:
                if name == "hostnames":
                    return self.measure_hostnames(stage)
                if proxy.command is None:
                    return run_load(self.command(load, self.servers))
                with self.running(proxy, stage) as running:
                    self.rest()
                    pids, core = running.pids(), min(cpus) if cpus else None
                    figures = run_load(self.command(load, stage.ways, pids, core))
                    if OTHER_KEY_EXCHANGE in figures:
                        tell(f"without {proxy.title}: it lacks this key exchange")
                    return figures
        except (NotStarted, RuntimeError) as error:
            self.failures.append(f"{name}: {proxy.title}: {error}")
            return {}

    def count_calls(self) -> None:
        """Prints the system calls for a connection and for a round trip."""
        calls.need_strace()
        proxies = [proxy for proxy in self.proxies.values() if self.takes(proxy, "conn")]
        with a_core_apart() as core, servers() as self.servers:
            for what, name in (("a connection", "conn"), ("a round trip", "ping64")):
                counts = {}
                for proxy in (proxy for proxy in proxies if proxy.command and proxy.uid is None):
                    tell(f"calls of {what}: {proxy.title}")
                    with self.stage(proxy, "ask", {core}) as stage:
                        with self.running(proxy, stage) as running:
                            counts[proxy.title] = calls.of_each(running, self.counting(name, stage))
                print(f"System calls for {what}:\n\n{calls.table(counts)}")

    def counting(self, name: str, stage: Stage) -> calls.Load:
        load = LOADS[name]
        return lambda seconds: run_load(self.command(load, stage.ways, seconds=seconds))["done"]

    def running(self, proxy: Proxy, stage: Stage) -> Running:
        return Running(proxy.command(stage), stage, hello("ask") if proxy.names else None)

    def measure_hostnames(self, stage: Stage) -> dict[str, float]:
        def ping(running: Running) -> dict[str, float]:
            return run_load(self.command(LOADS["hostnames"], stage.ways, running.pids()))

        seconds = self.options.seconds
        return hostnames.measure(stage, self.options.hostnames, hello, seconds, ping)

    def command(
        self,
        load: Load,
        ways: dict[str, str],
        pids: list[int] = [],
        core: int | None = None,
        seconds: float | None = None,
    ) -> list[str]:
        """`ways`: where each server is found. `pids`: the proxy, which has `core` for itself."""
        command = [str(PROGRAM), *load.command, f"--server={load.server}"]
        command.append(f"--to={ways[load.server]}")
        command.append(f"--seconds={seconds or self.options.seconds}")
        if load.command[0] == "idle":
            command.append(f"--connections={self.options.connections}")
        if load.stream:
            command.append(f"--stream-from={ways['get']}")
        if pids:
            command.append(f"--pids={','.join(map(str, pids))}")
        return command + ([] if core is None else [f"--core={core}"])

    def rest(self) -> None:
        time.sleep(0 if self.options.quick else REST)

    @contextmanager
    def stage(
        self,
        proxy: Proxy,
        server: str,
        cpus: set[int] | None,
        key: str | None = None,
    ) -> Iterator[Stage]:
        """`key`: of the certificate with which it serves TLS."""
        uid = proxy.uid if self.options.uid is None else self.options.uid
        binary = self.options.against if proxy.earlier else self.options.sluice
        with tempfile.TemporaryDirectory(prefix="sluice-compare-") as folder:
            # The proxy may run as another user.
            os.chmod(folder, 0o777)
            if key:
                make_certificate(key, folder)
            yield Stage(
                servers=self.servers,
                server=server,
                port=self.port,
                workers=1 if cpus else WORKERS,
                cpus=cpus,
                uid=uid,
                folder=Path(folder),
                sluice=str(Path(binary).resolve()),
                serves_tls=key is not None,
            )


@contextmanager
def a_core_apart() -> Iterator[int]:
    """A core that nothing runs on meanwhile but what is put there; the rest has another."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        sys.exit("a core for the proxy alone takes two CPUs; without: --pin no")
    load_cpu, proxy_cpu = sorted(mine)[:2]
    os.sched_setaffinity(0, {load_cpu})
    try:
        yield proxy_cpu
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """The servers behind all proxies."""
    process = subprocess.Popen([PROGRAM, "backends"], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield dict(process.stdout.readline().split() for _ in range(3))
        finally:
            process.kill()


def make_certificate(key: str, folder: str) -> None:
    command = [PROGRAM, "certificate", f"--key={key}", f"--folder={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_load(command: list[str]) -> dict[str, float]:
    seconds = next(float(flag.partition("=")[2]) for flag in command if "--seconds=" in flag)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise RuntimeError("the load hangs") from None
    if done.returncode != 0:
        raise RuntimeError(done.stderr.partition("\n")[0] or "the load failed")
    figures = json.loads(done.stdout)
    failed, of = figures.get("failed", 0), figures.get("done", 0) + figures.get("failed", 0)
    # A load of idle connections ends where a proxy has no descriptors left, and says only that.
    if "done" in figures and failed > MOST_FAILED * of:
        raise RuntimeError(f"{failed:.0f} of {of:.0f} failed")
    return figures


def hello(server: str) -> bytes:
    return HELLO.read_bytes().replace(NAME, f"{server}.example.com".encode())


def free_port() -> int:
    """One that is free together with the next, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(20_000, 30_000, 2)
        if not is_taken(port) and not is_taken(port + 1):
            return port


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
