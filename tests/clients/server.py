"""Python's ssl as a server: takes handshakes, and says how each connection ended.

server.py CERTIFICATE KEY [CA]

With CA, it requires a certificate of the client.
"""

import socket
import ssl
import sys


def main(certificate, key, ca=None):
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on %s:%d" % listener.getsockname(), flush=True)
    while True:
        plain, _ = listener.accept()
        names.clear()
        try:
            with context.wrap_socket(plain, server_side=True) as tls:
                rest = tls.recv(1)
                print("ended", names, tls.selected_alpn_protocol(), rest, flush=True)
        except OSError as error:
            print("failed", names, error, flush=True)


main(*sys.argv[1:])
