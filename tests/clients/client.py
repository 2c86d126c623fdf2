"""Python's ssl as a client: says one line and tells what was negotiated and answered.

client.py [--certificate FILE KEY] [--resume] ADDRESS PORT NAME CA VERSION MESSAGE [ALPN...]

With --resume, it connects a second time with the session of the first, and tells of the second.
"""

import argparse
import json
import socket
import ssl

VERSIONS = {
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", nargs=2)
    parser.add_argument("--resume", action="store_true")
    for name in ["address", "port", "name", "ca", "version", "message"]:
        parser.add_argument(name)
    parser.add_argument("alpn", nargs="*")
    return parser.parse_args()


def converse(given, context, session=None):
    with socket.create_connection((given.address, int(given.port))) as plain:
        with context.wrap_socket(plain, server_hostname=given.name, session=session) as tls:
            tls.sendall(given.message.encode() + b"\n")
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
                "resumed": tls.session_reused,
            }
            # The tickets of TLS 1.3 have come before the answer.
            session = tls.session
            tls.unwrap().close()
    return result, session


def main(given):
    context = ssl.create_default_context(cafile=given.ca)
    context.minimum_version = context.maximum_version = VERSIONS[given.version]
    if given.certificate:
        context.load_cert_chain(*given.certificate)
    if given.alpn:
        context.set_alpn_protocols(given.alpn)
    result, session = converse(given, context)
    if given.resume:
        result, _ = converse(given, context, session)
    print(json.dumps(result))


main(arguments())
