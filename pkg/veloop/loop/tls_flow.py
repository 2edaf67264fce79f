"""FlowControl: how much a TLS transport holds in memory, in both directions.

What it receives stays encrypted while the protocol is paused; over a limit the transport below
stops reading. What it sends stays plaintext while the transport below takes no more ("stuck").
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from .transport import Transport, limits

if TYPE_CHECKING:
    from .loop import EventLoop
    from .tls_state import Session

# Bytes, asyncio's limits.
_WRITE_HIGH = 512 * 1024
_READ_HIGH = 256 * 1024

# Answers of the TLS protocol itself that a peer may cause without reading any of them.
_ANSWERS_MAX = 64 * 1024

# What becomes of a connection: see tls_transport.py.
HANDSHAKE, OPEN, FLUSHING, SHUTDOWN, ENDED, LOST = range(6)


class FlowControl(Transport):
    """The part of an SSLTransport that says who has to wait."""

    __slots__ = (
        "_below",
        "_held_back",
        "_paused",
        "_read_high",
        "_read_low",
        "_session",
        "_state",
        "_stuck",
    )

    _session: Session

    def __init__(
        self, loop: EventLoop, protocol: asyncio.BaseProtocol, context: contextvars.Context
    ) -> None:
        self._below: Any = None
        self._state = HANDSHAKE
        self._stuck = False  # the transport below takes no more for now
        self._held_back = False  # it does not read for now
        self._paused = False  # the protocol does not want to read
        self._read_low, self._read_high = limits(None, None, _READ_HIGH)
        super().__init__(loop, protocol, context, None)
        self._low_water, self._high_water = limits(None, None, _WRITE_HIGH)

    # --------------------------------------------------------------------------- reading

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        self._paused = True

    def get_read_buffer_size(self) -> int:
        """How many bytes came in and were not decrypted yet."""
        return self._session.incoming.pending

    def get_read_buffer_limits(self) -> tuple[int, int]:
        """(low, high): see set_read_buffer_limits."""
        return self._read_low, self._read_high

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Over `high` bytes the transport below stops reading; not over `low`, it goes on."""
        self._read_low, self._read_high = limits(high, low, _READ_HIGH)
        self._limit_reading()

    def _limit_reading(self) -> None:
        """Let the transport below read or not, by what is in memory already."""
        if self._state >= ENDED:
            return
        session = self._session
        limit = self._read_low if self._held_back else self._read_high
        hold_back = (
            session.incoming.pending > limit
            # While we are stuck only TLS itself makes something to send: it answers the peer.
            or (self._stuck and session.outgoing.pending > _ANSWERS_MAX)
        )
        if hold_back and not self._held_back:
            self._held_back = True
            self._below.pause_reading()
        elif self._held_back and not hold_back:
            self._held_back = False
            self._below.resume_reading()

    # --------------------------------------------------------------------------- writing

    def get_write_buffer_size(self) -> int:
        return self._session.unsent()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._low_water, self._high_water = limits(high, low, _WRITE_HIGH)
        self._maybe_pause_protocol()
