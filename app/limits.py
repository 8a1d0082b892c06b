"""How much one client may ask for: on average, and at a time. A client is an address."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

MANY_CLIENTS = 10_000


class RateLimiter:
    """Rate limit per client, as a token bucket: a cost of `burst` at once, of `per_second` on average."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: cost left, time of the last request

    def seconds_to_wait(self, client: str, cost: float = 1.0) -> float:
        """Return 0 and take the cost if the client may send such a request now; otherwise, the seconds until it may."""
        now = time.monotonic()
        cost = min(cost, self._burst)
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._left[client] = (left - cost if left >= cost else left, now)
        if len(self._left) > MANY_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= cost else (cost - left) / self._per_second

    def give_back(self, client: str, cost: float = 1.0) -> None:
        """Return to the client the cost of a request that should not count."""
        left, then = self._left.get(client, (0.0, time.monotonic()))
        self._left[client] = (left + cost, then)


class WorkLimiter:
    """Limit on what one client has in work at a time. A request that is alone is admitted whatever it costs."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._in_work: dict[str, float] = {}

    @contextmanager
    def admitted(self, client: str, cost: float) -> Iterator[bool]:
        """Count the cost as in work until the block ends. Yields whether the client may have that much in work."""
        others = self._in_work.get(client, 0.0)
        if others and others + cost > self._most:
            yield False
            return
        self._in_work[client] = others + cost
        try:
            yield True
        finally:
            self._in_work[client] -= cost
            if self._in_work[client] < 1e-9:  # costs are sums of fractions
                del self._in_work[client]
