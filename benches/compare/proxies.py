"""The proxies that are compared: which there are, what they are called, and how each is started."""

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILT = ROOT / "target/compare"
HOST = "127.0.0.1"
# Debian's packages, and the one that installs the peer that Debian does not have.
PACKAGES = ["haproxy", "nginx", "libnginx-mod-stream", "sniproxy", "python3-venv"]
ENVOY = BUILT / "envoy"
# What the server's answer to a hello begins with. A proxy that refuses may answer too.
ANSWER = b"\x01"
# What a client of a proxy that serves TLS asks for, and what it says within: a hello without content.
SERVED = "ask.example.com"
EMPTY_RECORD = b"\x16\x03\x01\x00\x00"
# How long a proxy may take to start, a large table included.
PATIENCE = 120


@dataclass
class Stage:
    """Where a proxy is to listen, and what is behind it."""

    servers: dict[str, str]
    # The server that the load is about.
    server: str
    # It listens here, and an admin port may be on the next.
    port: int
    workers: int
    # None: any.
    cpus: set[int] | None
    # None: the one who runs this.
    uid: int | None
    folder: Path
    # The binary of sluice.
    sluice: str
    # Whether the proxy is to serve TLS, with the certificate in the folder; otherwise it passes TLS
    # through.
    serves_tls: bool = False

    @property
    def listen(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def ways(self) -> dict[str, str]:
        """Where the load finds each server behind the proxy."""
        return dict.fromkeys(self.servers, self.listen)

    def config(self, template: str, **more: str) -> str:
        """Fills in a configuration of peers/, the one for serving TLS if that is asked for, and returns
        its path."""
        values = {
            "LISTEN": self.listen,
            "HOST": HOST,
            "PORT": str(self.port),
            "WORKERS": str(self.workers),
            "FOLDER": str(self.folder),
            "USER": str(self.uid or "root"),
            **{name.upper(): address for name, address in self.servers.items()},
            **{f"{name.upper()}_PORT": a.rpartition(":")[2] for name, a in self.servers.items()},
            **more,
        }
        name, _, kind = template.rpartition(".")
        source = f"{name}-tls.{kind}" if self.serves_tls else template
        text = (HERE / "peers" / source).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        path = self.folder / template
        path.write_text(text)
        return str(path)


@dataclass
class Proxy:
    title: str
    # Makes the command that starts it; None where it is not installed. Without one, there is no proxy.
    command: Callable[[Stage], list[str] | None] | None
    # Makes the command that prints its version.
    version: Callable[[], list[str]] | None = None
    # One of those that sluice is compared with.
    peer: bool = False
    # Whether it has the servers by name, or only the one that the load is about.
    names: bool = True
    # Whether it serves TLS too, and is measured so.
    serves_tls: bool = False
    # Whether it has more than one worker.
    workers: bool = True
    # Whether it passes the end of one direction on and keeps the other open. Those that do not save a
    # step for each connection, and lose the answer of a client that has said all it wants to say.
    half_closes: bool = True
    # The loads that it is here for; all by default.
    loads: set[str] | None = None
    # The user it runs as, where that is not the same for all.
    uid: int | None = None
    # Whether it runs the earlier binary of sluice, `--against`.
    earlier: bool = False

    def takes(self, load: str, both: bool, tls: bool) -> bool:
        """`both`: the load is about two servers. `tls`: the proxy serves TLS."""
        if tls:
            return self.serves_tls
        if load in ("hostnames", "log"):
            return self is PROXIES["sluice" if load == "hostnames" else "sluice-log"]
        if self.command is None:
            return load not in ("idle", "half-close")
        return (self.loads is None or load in self.loads) and (self.names or not both)


def sluice(*flags: str) -> Callable[[Stage], list[str]]:
    def command(stage: Stage) -> list[str]:
        routes = stage.folder / "routes"
        routes.mkdir(exist_ok=True)
        shutil.copy(stage.config("sluice.yaml", **certificate_in_base64(stage)), routes)
        return sluice_over(stage, routes, *flags)

    return command


def certificate_in_base64(stage: Stage) -> dict[str, str]:
    """As a Secret has it."""
    if not stage.serves_tls:
        return {}
    files = {"CERTIFICATE": "server.crt", "KEY": "server.key"}
    contents = {name: (stage.folder / file).read_bytes() for name, file in files.items()}
    return {name: base64.b64encode(content).decode() for name, content in contents.items()}


def sluice_over(stage: Stage, routes: Path, *flags: str) -> list[str]:
    command = [stage.sluice, "run", "--source", "files", "--routes", str(routes)]
    command += ["--listen", stage.listen, "--admin", f"{HOST}:{stage.port + 1}"]
    terminate = ["--terminate"] if stage.serves_tls else []
    return command + ["--workers", str(stage.workers), "--log-level", "warn", *terminate, *flags]


def knows_terminate(binary: str) -> bool:
    """Whether it is a sluice that serves TLS."""
    command = [str(Path(binary).resolve()), "run", "--help"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return "--terminate" in told.stdout


def haproxy(stage: Stage) -> list[str] | None:
    return installed("haproxy", "-db", "-f", stage.config("haproxy.cfg"))


def nginx(stage: Stage) -> list[str] | None:
    if not shutil.which("nginx"):
        return None
    built = subprocess.run(["nginx", "-V"], stderr=subprocess.PIPE, text=True).stderr
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    load = f"load_module {module};" if "--with-stream=dynamic" in built else ""
    return installed("nginx", "-c", stage.config("nginx.conf", LOAD_STREAM=load))


def envoy(stage: Stage) -> list[str] | None:
    flags = ["--concurrency", str(stage.workers), "--log-level", "critical"]
    config = stage.config("envoy.yaml")
    return installed(envoy_program(), "-c", config, "--disable-hot-restart", *flags)


def envoy_program() -> str:
    own = ENVOY / "bin/envoy"
    return str(own) if own.is_file() else "envoy"


def sniproxy(stage: Stage) -> list[str] | None:
    return installed("sniproxy", "-f", "-n", "20000", "-c", stage.config("sniproxy.conf"))


def go(stage: Stage) -> list[str] | None:
    routes = [f"{name}.example.com={address}" for name, address in stage.servers.items()]
    files = [str(stage.folder / file) for file in ("server.crt", "server.key")]
    tls = ["-certificate", files[0], "-key", files[1]] if stage.serves_tls else []
    return installed(str(BUILT / "go-proxy"), *tls, stage.listen, *routes)


def floor(stage: Stage) -> list[str]:
    program = str(BUILT / "release/floor")
    return [program, stage.listen, stage.servers[stage.server], str(stage.workers)]


def limit(stage: Stage) -> list[str]:
    return [str(BUILT / "release/limit"), stage.listen, stage.servers[stage.server]]


def installed(program: str, *arguments: str) -> list[str] | None:
    return [program, *arguments] if shutil.which(program) else None


OFF = ("--access-log", "off")
PROXIES = {
    "sluice": Proxy("sluice", sluice(*OFF), serves_tls=True),
    "sluice-65532": Proxy("sluice as 65532", sluice(*OFF), uid=65532),
    "sluice-log": Proxy("sluice with its log", sluice("--access-log", "all"), loads={"log"}),
    "earlier": Proxy("earlier sluice", sluice(*OFF), serves_tls=True, earlier=True),
    "earlier-again": Proxy("earlier sluice, again", sluice(*OFF), serves_tls=True, earlier=True),
    "haproxy": Proxy("HAProxy", haproxy, lambda: ["haproxy", "-v"], peer=True, serves_tls=True),
    "nginx": Proxy(
        "nginx",
        nginx,
        lambda: ["nginx", "-v"],
        peer=True,
        serves_tls=True,
        half_closes=False,
    ),
    "envoy": Proxy(
        "Envoy",
        envoy,
        lambda: [envoy_program(), "--version"],
        peer=True,
        serves_tls=True,
    ),
    "sniproxy": Proxy(
        "sniproxy",
        sniproxy,
        lambda: ["sniproxy", "-V"],
        peer=True,
        workers=False,
        half_closes=False,
    ),
    "go": Proxy("Go", go, lambda: ["go", "version"], peer=True, serves_tls=True),
    "floor": Proxy("`floor`", floor, names=False),
    "limit": Proxy("`limit`", limit, names=False, loads={"bulk1", "bulk16", "bulk16up"}),
    "direct": Proxy("no proxy", None),
}


class NotStarted(Exception):
    """A proxy that did not come up, with what it said."""


class Running:
    """A proxy, from when it serves until the end of the block."""

    def __init__(self, command: list[str], stage: Stage, hello: bytes | None):
        self.log = open(stage.folder / "log", "w+b")
        user = {}
        if stage.uid is not None:
            user = {"user": stage.uid, "group": stage.uid, "extra_groups": []}
        cpus = stage.cpus
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.log,
                # Its children are in its session, and end with it.
                start_new_session=True,
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
                **user,
            )
        except OSError as error:
            raise NotStarted(str(error)) from None
        self.stage = stage
        self.hello = hello

    def __enter__(self) -> "Running":
        try:
            end = time.monotonic() + PATIENCE
            while not answers(self.stage, self.hello):
                if self.process.poll() is not None or time.monotonic() > end:
                    self.log.seek(0)
                    said = self.log.read().decode(errors="replace").strip()
                    raise NotStarted(said[-500:] or "it said nothing")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()
        end = time.monotonic() + PATIENCE
        while is_taken(self.stage.port):
            if time.monotonic() > end:
                raise NotStarted(f"something else listens on {self.stage.listen}")
            time.sleep(0.02)

    def memory(self) -> int:
        """In KiB."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))

    def pids(self) -> list[int]:
        """The process, and those that it started."""
        pids = [self.process.pid]
        for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(") ")[2].split()[1]) in pids:
                pids.append(entry)
        return pids


def answers(stage: Stage, hello: bytes | None) -> bool:
    """Whether a client with this hello comes through to a server; without one, whether it may
    connect."""
    try:
        with socket.create_connection((HOST, stage.port), timeout=1) as client:
            if hello is None:
                return True
            if not stage.serves_tls:
                client.sendall(hello)
                return client.recv(1) == ANSWER
            with unverified().wrap_socket(client, server_hostname=SERVED) as within:
                within.sendall(EMPTY_RECORD)
                return within.recv(1) == ANSWER
    except OSError:
        return False


def unverified() -> ssl.SSLContext:
    """Of a client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def is_taken(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0
