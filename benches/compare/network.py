"""A network of its own, in which every connection has the congestion control that is asked for."""

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
LOOPBACK = "127.0.0.0/8"
SETTINGS = Path("/proc/sys/net/ipv4")


def congestion_control() -> str:
    """What a connection has here unless something says otherwise."""
    return (SETTINGS / "tcp_congestion_control").read_text().strip()


def enter(control: str) -> None:
    """Takes this process and those that it starts into a new network namespace, which is gone with
    the last of them. Its routes say which congestion control to use, for the system's own setting may
    not be this user's to change."""
    available = (SETTINGS / "tcp_available_congestion_control").read_text().split()
    if control not in available:
        sys.exit(f"--congestion {control}: this kernel has {', '.join(available)}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        sys.exit(f"--congestion takes a network namespace of its own, and so root: {reason}")
    ip("link", "set", "lo", "up")
    for network in (LOOPBACK, LOOPBACK.replace("0/8", "1")):
        local = ["local", network, "dev", "lo", "proto", "kernel", "scope", "host"]
        ip("route", "replace", *local, "src", "127.0.0.1", "table", "local", "congctl", control)
    check(control)


def check(control: str) -> None:
    """Ends all unless both sides of a connection have this congestion control."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
            for side in client, accepted:
                name = side.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                if (has := name.rstrip(b"\0").decode()) != control:
                    sys.exit(f"--congestion {control}: a connection has {has} all the same")


def ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"--congestion: {error}")
