"""The body of an answer, sent as fast as the line allows: file to socket in the kernel where nothing is altered."""

from __future__ import annotations

import os
import socket
import ssl
import time

from tests.hub.faults import Answer, Request

_PIECE = 1 << 20
_TICKS = 50  # pieces a second on a thin line


def send(connection: socket.socket, answer: Answer, request: Request) -> bool:
    """Send the body; counts it in `request.sent`. False: the connection has to be closed, as a fault wants it."""
    length = answer.length
    stop = length if answer.stop_after is None else min(length, answer.stop_after)
    rate = answer.bytes_per_second
    size = max(1, min(_PIECE, int(rate / _TICKS))) if rate else _PIECE
    began = time.monotonic()
    with _Body(answer) as body:
        while request.sent < stop:
            count = body.send(connection, request.sent, min(size, stop - request.sent))
            if count == 0:
                return False  # the file is shorter than was announced
            request.sent += count
            if rate:
                time.sleep(max(0.0, began + request.sent / rate - time.monotonic()))
    if answer.hang:
        time.sleep(answer.hang)
    return answer.stop_after is None or answer.stop_after > length


class _Body:
    """Bytes, or a slice of a file."""

    def __init__(self, answer: Answer) -> None:
        self._content = answer.content
        self._flip_at = answer.flip_at
        self._file = -1

    def __enter__(self) -> _Body:
        if not isinstance(self._content, bytes):
            self._file = os.open(self._content[0], os.O_RDONLY)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def send(self, connection: socket.socket, position: int, size: int) -> int:
        """Send up to `size` bytes from `position` of the body; returns how many."""
        if isinstance(self._content, bytes):
            connection.sendall(self._content[position : position + size])
            return size
        place = self._content[1] + position
        if self._flip_at is None and hasattr(os, "sendfile") and not isinstance(connection, ssl.SSLSocket):
            return os.sendfile(connection.fileno(), self._file, place, size)
        piece = bytearray(os.pread(self._file, size, place))
        if self._flip_at is not None and place <= self._flip_at < place + len(piece):
            piece[self._flip_at - place] ^= 0xFF
        connection.sendall(piece)
        return len(piece)
