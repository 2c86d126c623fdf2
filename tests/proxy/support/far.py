"""A machine of its own, which can vanish: python3 far.py, in a network of its own.

Reads commands, one a line, and answers each with "done":

serve ADDRESS PORT    answers whatever comes there with "ok"
hold ADDRESS PORT     accepts there and reads nothing
wait                  does nothing
ask ADDRESS IP PORT HELLO   connects from ADDRESS to that port, sends HELLO (in hex), and reads once

It ends with its input.
"""

import socket
import sys
import threading

kept = []


def listener(address, port):
    return socket.create_server((address, int(port)))


def answer(stream):
    while stream.recv(4096):
        stream.sendall(b"ok")


def serve(listening, each):
    while True:
        each(listening.accept()[0])


def run(command, *arguments):
    if command == "wait":
        return
    if command == "serve":
        each = lambda stream: threading.Thread(target=answer, args=(stream,), daemon=True).start()
    elif command == "hold":
        each = kept.append
    else:
        source, host, port, hello = arguments
        stream = socket.create_connection((host, int(port)), source_address=(source, 0))
        stream.sendall(bytes.fromhex(hello))
        stream.recv(4096)
        return kept.append(stream)
    threading.Thread(target=serve, args=(listener(*arguments), each), daemon=True).start()


for line in sys.stdin:
    run(*line.split())
    print("done", flush=True)
