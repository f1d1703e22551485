"""A TCP proxy in front of the gateway. It can cut all connections in the middle of a call and connect to another replica afterwards."""

import socket
import threading


class Proxy:
    """Listens on `address`. Each new connection goes to the current target."""

    def __init__(self, target):
        self.target, self.open = target, set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def switch(self, target):
        """Cuts all connections and sends later ones to `target`. Returns whether there were any."""
        self.target, cut = target, list(self.open)
        for end in cut:
            self._end(end)
        return bool(cut)

    def close(self):
        self._end(self._listener)
        self.switch(self.target)

    def _end(self, end):
        self.open.discard(end)
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host, port = self.target.rsplit(":", 1)
            server = socket.create_connection((host, int(port)))
            self.open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._end(source)
        self._end(sink)
