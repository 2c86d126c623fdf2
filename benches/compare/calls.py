"""The system calls of each proxy, as strace counts them: for a connection and for a round trip.

Counts are the same on any machine but for those that depend on how much happens at once, which are the
waits. strace slows what it watches, so nothing is timed here.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Callable

from proxies import Running

# What counts as one kind; the rest go by their own names.
KINDS = {
    "read": ["read", "readv", "recvfrom", "recvmsg"],
    "write": ["write", "writev", "sendto", "sendmsg"],
    "accept": ["accept", "accept4"],
    "socket, connect": ["socket", "connect"],
    "options": ["setsockopt", "getsockopt"],
    "epoll_ctl": ["epoll_ctl"],
    "shutdown": ["shutdown"],
    "close": ["close"],
    "wait": ["epoll_wait", "epoll_pwait", "epoll_pwait2"],
}
# Others are not worth a mention when they are fewer than this for each.
RARE = 0.02
# Two runs, the second longer. What is done once for each, or once for each of their clients, is the
# same, and so not in their difference. The first is long enough for what is done for a connection that
# lasts.
SECONDS = (3, 6)
PATIENCE = 10
# What a proxy gets to close what the clients have left.
REST = 1

# Runs a load for so many seconds, and tells how many of its units were done.
Load = Callable[[float], float]


def of_each(running: Running, load: Load) -> Counter[str]:
    """How often each call is made for one unit of a load."""
    (few, fewer_done), (many, done) = [counted(running, load, seconds) for seconds in SECONDS]
    return Counter({name: (many[name] - few[name]) / (done - fewer_done) for name in many})


def counted(running: Running, load: Load, seconds: float) -> tuple[Counter[str], float]:
    summary = running.stage.folder / "calls"
    pids = [flag for pid in running.pids() for flag in ("-p", str(pid))]
    command = ["strace", "-f", "-c", "-U", "calls,name", "-o", str(summary), *pids]
    strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_tracer(strace, running)
        done = load(seconds)
        time.sleep(REST)
    finally:
        # It lets go of the proxy and writes what it has counted.
        strace.send_signal(signal.SIGINT)
        strace.wait()
    return read_summary(summary), done


def await_tracer(strace: subprocess.Popen, running: Running) -> None:
    statuses = [
        task / "status" for pid in running.pids() for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    end = time.monotonic() + PATIENCE
    while not all(f"TracerPid:\t{strace.pid}\n" in status.read_text() for status in statuses):
        if strace.poll() is not None or time.monotonic() > end:
            raise RuntimeError("strace cannot attach")
        time.sleep(0.02)


def read_summary(path: Path) -> Counter[str]:
    """Lines of a count and a name, between two rules."""
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [line for line in lines if len(line) == 2 and line[0].isdigit() and line[1] != "total"]
    return Counter({name: int(count) for count, name in rows})


def table(calls: dict[str, Counter[str]]) -> str:
    """A row for each proxy, by its title."""
    def is_made(names: list[str]) -> bool:
        return any(sum_of(counts, names) >= RARE for counts in calls.values())

    kinds = [kind for kind, names in KINDS.items() if is_made(names)]
    known = {name for names in KINDS.values() for name in names}
    lines = [["", *kinds, "other", "all but wait"], ["---", *("--:" for _ in kinds), "---", "--:"]]
    for title, counts in calls.items():
        cells = [number(sum_of(counts, KINDS[kind])) for kind in kinds]
        others = {name: count for name, count in counts.items() if name not in known}
        other = ", ".join(f"{n} {number(c)}" for n, c in sorted(others.items()) if c >= RARE)
        every = sum(counts.values()) - sum_of(counts, KINDS["wait"])
        lines.append([title, *cells, other, number(every)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def sum_of(counts: Counter[str], names: list[str]) -> float:
    return sum(counts[name] for name in names)


def number(value: float) -> str:
    # The difference of two runs may be a little below 0 where there is nothing.
    return f"{max(value, 0):.2f}".rstrip("0").rstrip(".")


def need_strace() -> None:
    if not shutil.which("strace"):
        sys.exit("strace is not installed; Debian's package has the same name")
