"""A TCP door in front of the gateway: it can be shut in the middle of a call, and leads elsewhere when it opens again."""

import socket
import threading


class Door:
    """Listens on `address`; every connection goes to where the door leads at that moment."""

    def __init__(self, to):
        self.to, self.open = to, set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def turn(self, to):
        """Cuts what is open, and says whether anything was; the next connections go to `to`."""
        self.to, cut = to, list(self.open)
        for end in cut:
            self._end(end)
        return bool(cut)

    def close(self):
        self._end(self._listener)
        self.turn(self.to)

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
                near, _ = self._listener.accept()
            except OSError:
                return
            host, port = self.to.rsplit(":", 1)
            far = socket.create_connection((host, int(port)))
            self.open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._end(source)
        self._end(sink)
