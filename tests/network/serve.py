"""Runs inside a pod: answers HTTP and UDP on two ports, UDP on one address if it is given."""

import http.server
import socket
import sys
import threading

http_port, udp_port = map(int, sys.argv[1:3])
address = "".join(sys.argv[3:])


def echo():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((address, udp_port))
        while True:
            data, sender = s.recvfrom(2048)
            s.sendto(data, sender)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")

    def log_message(self, *_):
        pass


threading.Thread(target=echo, daemon=True).start()
http.server.ThreadingHTTPServer(("", http_port), Handler).serve_forever()
