"""Runs inside a pod: tries the connections that it reads from stdin, all at the same time, and prints the outcome of each."""

import json
import os
import socket
import ssl
import struct
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

TIMEOUT = 3.0
# For getaddrinfo.
os.environ["RES_OPTIONS"] = "timeout:2 attempts:1"


def tcp(host, port):
    socket.create_connection((host, port), TIMEOUT).close()
    return "connected"


def udp(host, port):
    """Two datagrams, since one may be lost. A refusal is an ICMP message of the other side: the datagram was delivered."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(TIMEOUT / 2)
        s.connect((host, port))
        for attempt in range(2):
            s.send(b"probe")
            try:
                s.recv(100)
                return "answered"
            except TimeoutError:
                if attempt:
                    raise


def icmp(host, _port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.settimeout(TIMEOUT)
        s.connect((host, 0))
        s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"probe")
        s.recv(100)
    return "answered"


def dns(host, port):
    """A query for the address of a.example.test."""
    name = b"".join(bytes([len(label)]) + label for label in b"a.example.test".split(b"."))
    query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(TIMEOUT)
        s.connect((host, port))
        s.send(query)
        s.recv(512)
    return "answered"


def name(host, _port):
    """Only resolves."""
    return "answered " + socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]


def http(host, port):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{host}:{port}/", timeout=TIMEOUT) as r:
        return "answered " + r.read(200).decode()


def tls(host, port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), TIMEOUT) as s, context.wrap_socket(s, server_hostname=host) as t:
        return "connected " + t.version()


def attempt(kind, host, port):
    try:
        return globals()[kind](host, port)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        # Timeouts, unreachable networks, and names that cannot be resolved.
        return f"failed {error}"


if __name__ == "__main__":
    attempts = json.load(sys.stdin)
    with ThreadPoolExecutor(len(attempts)) as pool:
        print(json.dumps(list(pool.map(lambda a: attempt(*a), attempts))))
