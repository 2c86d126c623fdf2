"""sluice with very many hostnames: what they take, and what a change does to those who are served."""

import itertools
import statistics
import threading
import time
import urllib.request
from pathlib import Path
from typing import Callable, Iterable

from proxies import HOST, Running, Stage, answers, sluice_over

# The most that a route may have.
NAMES_A_ROUTE = 64
ROUTES_A_FILE = 100
# How long the process may take until its memory no longer changes, and a change until it is live.
PATIENCE = 60
# How often it is measured what changes do to others: without any, with one, and with many.
ROUNDS = 5
# How many seconds pass between many changes.
MANY_EVERY = 0.2
# How many seconds the pings run before they are measured, as in src/meter.rs.
WARM_UP = 0.3

Figures = dict[str, float]


def measure(
    stage: Stage,
    count: int,
    hello: Callable[[str], bytes],
    seconds: float,
    ping: Callable[[Running], Figures],
) -> Figures:
    """The figures of one round. `ping` runs that load once, which is measured for so many seconds."""
    folder = stage.folder / "hostnames"
    folder.mkdir()
    command = sluice_over(stage, folder, "--access-log", "off")
    write(folder / "ask.yaml", [route("ask", ["ask.example.com"], stage)])
    with Running(command, stage, hello("ask")) as proxy:
        without = settled_memory(proxy)
    fill(folder, count, stage)
    begun = time.monotonic()
    with Running(command, stage, hello("ask")) as proxy:
        ready = time.monotonic() - begun
        memory = settled_memory(proxy)
        tables = generation(stage)
        live = time_until_live(folder, stage, hello("new"))
        if generation(stage) != tables + 1:
            raise RuntimeError("one change made more than one table")
        changes = Changes(folder, stage, seconds)
        rounds = [changes.percentiles(lambda: ping(proxy)["p99_us"]) for _ in range(ROUNDS)]
    return {
        "mib": (memory - without) / 1024,
        "ready_s": ready,
        "live_s": live,
        **medians(rounds),
    }


def medians(rounds: list[dict[str, float]]) -> Figures:
    """The 99th percentiles, and the ratios to that without changes."""
    figures = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    for name in ("p99_changed_us", "p99_changing_us"):
        ratios = [one[name] / one["p99_calm_us"] for one in rounds]
        figures[f"{name}_ratio"] = statistics.median(ratios)
    return figures


def time_until_live(folder: Path, stage: Stage, hello: bytes) -> float:
    """Changes one route, and waits until `hello`, which has its new name, finds it; in seconds."""
    begun = time.monotonic()
    change_one(folder, stage, "new")
    while not answers(stage, hello):
        if time.monotonic() - begun > PATIENCE:
            raise RuntimeError(f"a change is not live after {PATIENCE} s")
        time.sleep(0.01)
    return time.monotonic() - begun


class Changes:
    """Changes one route, each time to something else."""

    def __init__(self, folder: Path, stage: Stage, seconds: float):
        self.folder, self.stage = folder, stage
        self.middle = WARM_UP + seconds / 2
        self.numbers = itertools.count()

    def percentiles(self, ping: Callable[[], float]) -> dict[str, float]:
        """What `ping` tells without a change, through one in the middle and through many."""
        return {
            "p99_calm_us": ping(),
            "p99_changed_us": self.through([self.middle], ping),
            "p99_changing_us": self.through(itertools.repeat(MANY_EVERY), ping),
        }

    def through(self, pauses: Iterable[float], ping: Callable[[], float]) -> float:
        """What `ping` tells while the route changes after each of `pauses`."""
        over, tables, changes = threading.Event(), generation(self.stage), 0

        def change() -> None:
            nonlocal changes
            for pause in pauses:
                if over.wait(pause):
                    break
                changes += 1
                change_one(self.folder, self.stage, f"new-{next(self.numbers)}")

        changing = threading.Thread(target=change)
        changing.start()
        try:
            told = ping()
        finally:
            over.set()
            changing.join()
        # The last may not be live yet, and two that come close may make one table.
        if (made := generation(self.stage) - tables) < changes // 2:
            raise RuntimeError(f"{changes} changes made no more than {made:.0f} tables")
        return told


def fill(folder: Path, count: int, stage: Stage) -> None:
    names = (f"app-{number}.team-{number % 997}.example.com" for number in range(count))
    routes = (
        route(f"many-{number}", list(some), stage)
        for number, some in enumerate(batches(names, NAMES_A_ROUTE))
    )
    for number, some in enumerate(batches(routes, ROUTES_A_FILE)):
        write(folder / f"many-{number}.yaml", list(some))
    change_one(folder, stage, "old")


def change_one(folder: Path, stage: Stage, name: str) -> None:
    write(folder / "changed.yaml", [route("changed", [f"{name}.example.com"], stage)])


def batches(items, size: int):
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def route(name: str, hostnames: list[str], stage: Stage) -> str:
    return f"""apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: {name}, namespace: compare }}
spec:
  hostnames: [{", ".join(hostnames)}]
  backends: [{{ address: "{stage.servers["ask"]}" }}]
"""


def write(path: Path, documents: list[str]) -> None:
    # In one step, as a reader may come at any time.
    new = path.with_suffix(".new")
    new.write_text("---\n".join(documents))
    new.rename(path)


def settled_memory(proxy: Running) -> int:
    """Its memory in KiB, once that no longer changes."""
    memory, end = proxy.memory(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(1)
        before, memory = memory, proxy.memory()
        if memory == before:
            break
    return memory


def generation(stage: Stage) -> float:
    page = urllib.request.urlopen(f"http://{HOST}:{stage.port + 1}/metrics", timeout=10)
    lines = page.read().decode().splitlines()
    series = "sluice_table_generation "
    return next(float(line.removeprefix(series)) for line in lines if line.startswith(series))

