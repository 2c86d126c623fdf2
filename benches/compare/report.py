"""The figures as Markdown tables."""

import argparse
import datetime
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Callable

import network
from proxies import PROXIES, Proxy

# By pinned or free, load and proxy: the figures of each round.
Results = dict[str, dict[str, dict[str, list[dict[str, float]]]]]


@dataclass
class Row:
    title: str
    group: str
    load: str
    # The figure's name in the load's output, and what it is multiplied with to be shown.
    figure: str
    scale: float = 1
    _: KW_ONLY
    more_is_better: bool = False
    # The peers to be measured against.
    against: Callable[[Proxy], bool] = lambda proxy: True
    # What no proxy can be far below.
    yardstick: str = ""

    def is_cpu(self) -> bool:
        """Whether this is what the proxy's threads were charged."""
        return self.figure.startswith("cpu_")

    def of_core(self) -> "Row":
        """The same by how long the proxy's core was used."""
        figure = self.figure.replace("cpu_", "core_", 1)
        return replace(self, title=self.title.replace("CPU per", "per"), figure=figure)


def passes_half_closes_on(proxy: Proxy) -> bool:
    return proxy.half_closes


def has_workers(proxy: Proxy) -> bool:
    return proxy.workers


def handshake(kind: str, load: str) -> Row:
    """Of a connection that does little else."""
    return Row(f"handshake, {kind}: CPU per connection, µs", "pinned", load, "cpu_us_per_conn")


# The fewest rounds of which a middle half says more than the least and the greatest.
LEAST_FOR_A_HALF = 5
# A figure that is 1 or 0.
YES_OR_NO = "half_close"
OF_BULK = {"scale": 1000, "yardstick": "limit"}
OF_MIX = {"against": has_workers}
OF_CONNECTIONS = {"against": passes_half_closes_on, "yardstick": "floor"}
ROWS = [
    Row("1 stream: CPU per GB, ms", "pinned", "bulk1", "cpu_s_per_gb", **OF_BULK),
    Row("16 streams down: CPU per GB, ms", "pinned", "bulk16", "cpu_s_per_gb", **OF_BULK),
    Row("16 streams up: CPU per GB, ms", "pinned", "bulk16up", "cpu_s_per_gb", **OF_BULK),
    Row("16 streams down: Gbit/s", "free", "bulk16", "gbit_s", more_is_better=True),
    Row("CPU per connection, µs", "pinned", "conn", "cpu_us_per_conn", **OF_CONNECTIONS),
    Row("connections/s", "free", "conn", "conn_s", **OF_CONNECTIONS, more_is_better=True),
    Row("1 ping: CPU per round trip, µs", "pinned", "ping1", "cpu_us_per_rt", yardstick="floor"),
    Row("64 pings: CPU per round trip, µs", "pinned", "ping64", "cpu_us_per_rt", yardstick="floor"),
    Row("64 pings: round trips/s", "free", "ping64", "rt_s", more_is_better=True),
    Row("64 pings: 99th percentile, µs", "free", "ping64", "p99_us"),
    Row("the same beside 1 stream, µs", "free", "mix", "p99_us", **OF_MIX),
    Row("that stream: Gbit/s", "free", "mix", "stream_gbit_s", **OF_MIX, more_is_better=True),
    Row("64 pings beside 1 Gbit/s: 99th percentile, µs", "free", "mix1g", "p99_us", **OF_MIX),
    Row("that stream, of 1 Gbit/s", "free", "mix1g", "stream_gbit_s", **OF_MIX, more_is_better=True),
    Row("idle connection: KiB", "free", "idle", "kib_per_conn"),
    Row("idle connection: descriptors", "free", "idle", "descriptors_per_conn"),
    Row("passes half-closes on", "free", "half-close", YES_OR_NO),
]
# What is measured while the proxy serves TLS.
TLS_ROWS = [
    handshake("full, ECDSA P-256, X25519MLKEM768", "tls-mlkem"),
    handshake("full, ECDSA P-256, X25519", "tls-x25519"),
    handshake("full, RSA-2048, X25519", "tls-rsa"),
    handshake("resumed, X25519", "tls-resumed"),
    Row("1 stream down: CPU per GB, ms", "pinned", "tls-bulk1", "cpu_s_per_gb", 1000),
    Row("1 stream up: CPU per GB, ms", "pinned", "tls-bulk1up", "cpu_s_per_gb", 1000),
    Row("16 streams down: CPU per GB, ms", "pinned", "tls-bulk16", "cpu_s_per_gb", 1000),
    Row("16 streams up: CPU per GB, ms", "pinned", "tls-bulk16up", "cpu_s_per_gb", 1000),
    Row("1 ping: CPU per round trip, µs", "pinned", "tls-ping1", "cpu_us_per_rt"),
    Row("64 pings: CPU per round trip, µs", "pinned", "tls-ping64", "cpu_us_per_rt"),
    Row("idle connection: KiB", "free", "tls-idle", "kib_per_conn"),
]
CORE = [row.of_core() for row in ROWS if row.is_cpu()]
TLS_CORE = [row.of_core() for row in TLS_ROWS if row.is_cpu()]
LOG = Row("CPU per connection with the access log, µs", "pinned", "log", "cpu_us_per_conn")
HOSTNAMES = [
    Row("with a large table in files: memory more than without, MiB", "free", "hostnames", "mib"),
    Row("with it: served after the start, s", "free", "hostnames", "ready_s"),
    Row("with it: a changed route is live after, s", "free", "hostnames", "live_s"),
    Row("with it, 64 pings: 99th percentile, µs", "free", "hostnames", "p99_calm_us"),
    Row("the same while a route changes once, µs", "free", "hostnames", "p99_changed_us"),
    Row("while one changes five times a second, µs", "free", "hostnames", "p99_changing_us"),
]


def tables(results: Results, proxies: dict[str, Proxy]) -> str:
    all_tables = [
        comparison(results, proxies, "", ROWS),
        comparison(results, proxies, "time of the proxy's core", CORE),
        comparison(results, proxies, "serving TLS", TLS_ROWS),
        comparison(results, proxies, "serving TLS: time of the proxy's core", TLS_CORE),
        of_sluice_alone(results),
        to_earlier(results),
    ]
    return "\n".join(filter(None, all_tables))


def comparison(results: Results, proxies: dict[str, Proxy], head: str, rows: list[Row]) -> str:
    """A table with a column for each proxy that has any of `rows`."""
    columns = [name for name in proxies if any(cell(results, row, name) for row in rows)]
    if not columns:
        return ""
    titles = [proxies[name].title for name in columns]
    ratios = {"sluice to the best peer": to_best_peer}
    if any(row.yardstick for row in rows):
        ratios["to the yardstick"] = to_yardstick
    lines = line([head, *titles, *ratios])
    lines += line(["---", *("--:" for _ in columns), *("---" for _ in ratios)])
    for row in rows:
        cells = [cell(results, row, name) for name in columns]
        if any(cells):
            of_sluice = [ratio_of_row(results, row) for ratio_of_row in ratios.values()]
            lines += line([row.title, *cells, *of_sluice])
    return lines


def of_sluice_alone(results: Results) -> str:
    rows = [(LOG.title, log_cell(results))]
    rows += [(row.title, hostnames_cell(results, row)) for row in HOSTNAMES]
    rows = [row for row in rows if row[1]]
    if not rows:
        return ""
    return line(["sluice alone", ""]) + line(["---", "--:"]) + "".join(map(line, rows))


def to_earlier(results: Results) -> str:
    """The ratios to an earlier binary, and of that to itself, which is what ratios of nothing come to."""
    titled = [(row.title, row) for row in ROWS + CORE]
    titled += [(f"serving TLS: {row.title}", row) for row in TLS_ROWS + TLS_CORE]
    rows = [
        (
            title,
            ratio(results, row, "earlier"),
            ratio(results, row, "earlier", ours="earlier-again"),
        )
        for title, row in titled
        if row.figure != YES_OR_NO
    ]
    rows = [row for row in rows if row[1]]
    if not rows:
        return ""
    head = ["", "sluice to the earlier one", "that to itself"]
    return line(head) + line(["---", "---", "---"]) + "".join(map(line, rows))


def line(cells) -> str:
    return f"| {' | '.join(cells)} |\n"


def cell(results: Results, row: Row, name: str) -> str:
    """The median, and how far half of the way from the least to the greatest is from it."""
    values = values_of(results, row, name)
    if not values:
        return ""
    if row.figure == YES_OR_NO:
        return "yes" if all(values) else "no"
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2
    percent = f" ±{100 * spread / median:.0f} %" if median and len(values) > 1 else ""
    return f"{number(median)}{percent}"


def values_of(results: Results, row: Row, name: str) -> list[float]:
    rounds = results[row.group].get(row.load, {}).get(name, [])
    return [figures[row.figure] * row.scale for figures in rounds if row.figure in figures]


def number(value: float) -> str:
    """With three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def log_cell(results: Results) -> str:
    """What the access log makes of a connection, and how that is to one without."""
    of_log = values_of(results, LOG, "sluice-log")
    without = values_of(results, next(row for row in ROWS if row.load == "conn"), "sluice")
    more = f", {ratio_of(of_log, without, 'without')}" if of_log and without else ""
    return cell(results, LOG, "sluice-log") + more


def hostnames_cell(results: Results, row: Row) -> str:
    """The figure, and for what changes do the ratio to without."""
    ratios = values_of(results, replace(row, figure=f"{row.figure}_ratio"), "sluice")
    more = f", {statistics.median(ratios):.2f} of without" if ratios else ""
    return cell(results, row, "sluice") + more


def to_best_peer(results: Results, row: Row) -> str:
    theirs = {
        name: statistics.median(values)
        for name, proxy in PROXIES.items()
        if proxy.peer and row.against(proxy) and (values := values_of(results, row, name))
    }
    if not theirs or row.figure == YES_OR_NO:
        return ""
    best = (max if row.more_is_better else min)(theirs, key=theirs.get)
    return ratio(results, row, best)


def to_yardstick(results: Results, row: Row) -> str:
    return ratio(results, row, row.yardstick) if row.yardstick else ""


def ratio(results: Results, row: Row, name: str, ours: str = "sluice") -> str:
    ours, theirs = values_of(results, row, ours), values_of(results, row, name)
    if not ours or not theirs or not all(theirs):
        return ""
    return ratio_of(ours, theirs, PROXIES[name].title)


def ratio_of(ours: list[float], theirs: list[float], whose: str) -> str:
    """The median of the ratios in each round, which know nothing of how the machine changes from round
    to round, and the middle half of them. Where one has failed in some, it is not known which belong
    together."""
    if len(ours) != len(theirs):
        return f"{statistics.median(ours) / statistics.median(theirs):.2f} of {whose}"
    ratios = [our / their for our, their in zip(ours, theirs)]
    text = f"{statistics.median(ratios):.2f} of {whose}"
    if len(ratios) < LEAST_FOR_A_HALF:
        return text
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{text} ({low:.2f} to {high:.2f})"


def circumstances(proxies: dict[str, Proxy], options: argparse.Namespace) -> str:
    """What the figures depend on."""
    named = [(proxy.title, version(proxy.version())) for proxy in proxies.values() if proxy.version]
    sluice = version([str(options.sluice), "--version"])
    what = {
        "Machine": f"{processor()}, {os.cpu_count()} CPUs, {memory()} of memory",
        "System": f"{platform.system()} {kernel()}, {distribution()}",
        "Congestion control": options.congestion or network.congestion_control(),
        "Versions": ", ".join([f"sluice {sluice}", *(f"{t} {v}" for t, v in named)]),
        "Date": f"{datetime.date.today()}, {options.rounds} rounds of {options.seconds:g} s",
        "Command": f"`{shlex.join(['benches/compare/compare.py', *sys.argv[1:]])}`",
    }
    return "".join(f"* {name}: {value}\n" for name, value in what.items())


def kernel() -> str:
    """Its major and minor version, without what its builder has added."""
    return ".".join(platform.release().split(".")[:2])


def version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    found = re.search(r"\d+\.\d+\.\d+[^\s/]*", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def processor() -> str:
    return field_of("/proc/cpuinfo", "model name", ":") or platform.machine()


def memory() -> str:
    kibibytes = field_of("/proc/meminfo", "MemTotal", ":") or "0 kB"
    return f"{int(kibibytes.split()[0]) / (1 << 20):.0f} GiB"


def distribution() -> str:
    return field_of("/etc/os-release", "PRETTY_NAME", "=").strip('"') or "unknown distribution"


def field_of(path: str, name: str, separator: str) -> str:
    for text in Path(path).read_text().splitlines():
        key, _, value = text.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""
