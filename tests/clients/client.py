"""Python's ssl as a client: says one line and tells what was negotiated and answered.

client.py ADDRESS PORT NAME CA VERSION MESSAGE [ALPN...]
"""

import json
import socket
import ssl
import sys


def main(address, port, name, ca, version, message, *alpn):
    context = ssl.create_default_context(cafile=ca)
    only = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    context.minimum_version = context.maximum_version = only
    if alpn:
        context.set_alpn_protocols(list(alpn))
    with socket.create_connection((address, int(port))) as plain:
        with context.wrap_socket(plain, server_hostname=name) as tls:
            tls.sendall(message.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                received = tls.recv(4096)
                if not received:
                    raise EOFError("the answer has no end")
                answer += received
            result = {
                "version": tls.version(),
                "alpn": tls.selected_alpn_protocol() or "",
                "answer": answer[:-1].decode(),
            }
            tls.unwrap().close()
    print(json.dumps(result))


main(*sys.argv[1:])
