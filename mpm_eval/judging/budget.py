"""A cap on what judging costs, kept by counting the worst case of every request on its way."""

import threading
from dataclasses import dataclass

from mpm_eval.judging.protocol import JudgeRequest, JudgeStopped

_FRAME_TOKENS = 64  # a chat template around system message and prompt
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may use at most; None: no limit."""

    requests: int | None = None  # tries included
    tokens: int | None = None  # prompt and reply
    usd: float | None = None
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request on its way, with the most tokens that it can use."""

    tokens_in: int
    tokens_out: int


class Budget:
    """What was used and what is on its way; safe to share between threads.

    A prompt has no more tokens than bytes, so that the worst case is known before it is sent:
    the limits hold, and are reached a little early.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self.num_requests = 0
        self.tokens_in = self.tokens_out = 0  # worst case of what is on its way included

    @property
    def usd(self) -> float:
        """What was used, in dollars at the prices given."""
        return self._cost(self.tokens_in, self.tokens_out)

    def reserve(self, request: JudgeRequest) -> Ticket:
        """Return a ticket for one try; raises JudgeStopped when a limit could be exceeded."""
        size = len(request.system.encode()) + len(request.prompt.encode())
        ticket = Ticket(size + _FRAME_TOKENS, request.max_reply_tokens)
        with self._lock:
            tokens_in = self.tokens_in + ticket.tokens_in
            tokens_out = self.tokens_out + ticket.tokens_out
            found = {
                "--max-requests": (self._limits.requests, self.num_requests + 1),
                "--max-total-tokens": (self._limits.tokens, tokens_in + tokens_out),
                "--max-cost": (self._limits.usd, self._cost(tokens_in, tokens_out)),
            }
            for option, (limit, would_be) in found.items():
                if limit is not None and would_be > limit:
                    raise JudgeStopped(
                        f"{option} {limit:g}: the next request could exceed it; raise it and run "
                        "the same command to continue"
                    )
            self.num_requests += 1
            self.tokens_in, self.tokens_out = tokens_in, tokens_out
        return ticket

    def settle(self, ticket: Ticket, used: tuple[int, int] | None) -> None:
        """Replace the worst case of a ticket by what was used; None: unknown, so it stays."""
        if used is None:
            return
        with self._lock:
            self.tokens_in += used[0] - ticket.tokens_in
            self.tokens_out += used[1] - ticket.tokens_out

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        limits = self._limits
        return (
            tokens_in * limits.usd_per_million_in + tokens_out * limits.usd_per_million_out
        ) / _MILLION
