"""A line between two programs of this machine that can be cut, or go dead."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Passes on what comes to its port, until it is told otherwise.

    ``cut`` closes all connections and refuses new ones; ``stall`` keeps them and takes what is sent, but passes
    on nothing.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._is_stalled = False
        self._listener: socket.socket | None = None
        self.port = 0
        self.connections = 0
        self.mend()

    def mend(self) -> None:
        """Pass on again; connections from before stay lost."""
        self.cut()
        self._is_stalled = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Close everything."""
        if self._listener is not None:
            # Closing alone would not wake the thread that waits for connections.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for line in self._open:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        self._open.clear()

    def stall(self) -> None:
        """Take everything and pass on nothing."""
        self._is_stalled = True

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=[source, sink], daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if not self._is_stalled:
                    sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
