#!/usr/bin/env python3
"""Captures the ClientHello of every client that is installed into the folder hello/ beside this file.

Each client connects to a socket on the loopback that reads one hello and hangs up. Clients that are
not installed are named and passed over. Arguments: the captures to make anew, by name; all if none.
"""

import contextlib
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
NAME = "www.example.com"
SCRATCH = pathlib.Path(tempfile.mkdtemp())

GO = """package main

import ("crypto/tls"; "os")

func main() {
	config := &tls.Config{ServerName: "www.example.com"}
	for _, option := range os.Args[2:] {
		switch option {
		case "alpn": config.NextProtos = []string{"h2", "http/1.1"}
		case "tls12": config.MaxVersion = tls.VersionTLS12
		case "anonymous": config.ServerName, config.InsecureSkipVerify = "", true
		}
	}
	tls.Dial("tcp", "127.0.0.1:"+os.Args[1], config)
}
"""


def s_client(port, *options):
    return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]


def curl(port, *options, host=NAME):
    resolve = ["--resolve", f"{NAME}:{port}:127.0.0.1"]
    return ["curl", "--silent", "--insecure", *resolve, *options, f"https://{host}:{port}/"]


def go(port, *options):
    source = SCRATCH / "hello.go"
    source.write_text(GO)
    return ["go", "run", str(source), str(port), *options]


def chromium(port):
    return [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={SCRATCH}/chromium",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1:{port}, MAP * ~NOTFOUND",
        f"https://{NAME}/",
    ]  # fmt: skip


def resumed(port):
    """A second handshake, with a ticket from a server of its own and early data."""
    key, cert, session = (str(SCRATCH / name) for name in ("key.pem", "cert.pem", "session.pem"))
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-subj", f"/CN={NAME}", "-keyout", key, "-out", cert],
        check=True, **quiet,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    options = ["-accept", f"127.0.0.1:{own}", "-key", key, "-cert", cert, "-tls1_3"]
    pipe = dict(stdin=subprocess.PIPE, **quiet)
    server = subprocess.Popen(["openssl", "s_server", "-early_data", *options], **pipe)
    deadline = time.monotonic() + 10
    # The ticket comes some time after the handshake, and is written by a client that ends well.
    while not pathlib.Path(session).exists() and time.monotonic() < deadline:
        first = s_client(own, "-servername", NAME, "-sess_out", session)
        client = subprocess.Popen(first, **pipe)
        time.sleep(0.2)
        client.communicate(b"Q\n")
    server.kill()
    early = SCRATCH / "early"
    early.write_bytes(b"early data")
    return s_client(port, "-servername", NAME, "-sess_in", session, "-early_data", str(early))


def python(port):
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with contextlib.suppress(OSError):  # We hang up on it.
            context.wrap_socket(plain, server_hostname=NAME)


CLIENTS = {
    "openssl-tls13": lambda port: s_client(port, "-servername", NAME),
    "openssl-alpn": lambda port: s_client(port, "-servername", NAME, "-alpn", "h2,http/1.1"),
    "openssl-noname": lambda port: s_client(port, "-noservername"),
    "openssl-tls12": lambda port: s_client(port, "-servername", NAME, "-tls1_2"),
    "openssl-tls10": lambda port: s_client(
        port, "-servername", NAME, "-tls1", "-cipher", "ALL:@SECLEVEL=0"
    ),
    "openssl-upper-dot": lambda port: s_client(port, "-servername", "WWW.Example.COM."),
    "openssl-resumed": resumed,
    "curl": lambda port: curl(port),
    "curl-tls12": lambda port: curl(port, "--tls-max", "1.2"),
    "curl-address": lambda port: curl(port, host="127.0.0.1"),
    "go": lambda port: go(port),
    "go-alpn": lambda port: go(port, "alpn"),
    "go-tls12": lambda port: go(port, "tls12"),
    "go-anonymous": lambda port: go(port, "anonymous"),
    "gnutls": lambda port: [
        "gnutls-cli", "--insecure", f"--sni-hostname={NAME}", "--alpn=h2", f"--port={port}",
        "127.0.0.1",
    ],
    "python": python,
    "chromium": chromium,
}  # fmt: skip


def whole(records):
    """The length of the records that carry the hello, or None if they are not all there."""
    message, at = b"", 0
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        if len(records) < at + 5:
            return None
        end = at + 5 + int.from_bytes(records[at + 3 : at + 5], "big")
        message, at = message + records[at + 5 : end], end
    return at if len(records) >= at else None


def capture(client):
    """Starts the client against a new socket and returns the hello that comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        stop = start(client, listener.getsockname()[1])
        connection, _ = listener.accept()
        received = b""
        with connection:
            while (length := whole(received)) is None:
                received += connection.recv(65536)
        stop()
        return received[:length]


def start(client, port):
    """Starts the client and returns what ends it."""
    if client is python:
        thread = threading.Thread(target=python, args=[port])
        thread.start()
        return thread.join
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(client(port), **quiet)

    def stop():
        process.terminate()
        process.wait()

    return stop


def main():
    for name in sys.argv[1:] or CLIENTS:
        try:
            hello = capture(CLIENTS[name])
        except FileNotFoundError as missing:
            print(f"{name}: {missing.filename} is not installed")
            continue
        (HERE / "hello" / f"{name}.bin").write_bytes(hello)
        print(f"{name}: {len(hello)} bytes")


if __name__ == "__main__":
    main()
