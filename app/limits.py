"""How much one client may ask for."""

import time
from collections import OrderedDict

MANY_CLIENTS = 10_000


class RateLimiter:
    """Rate limit per client, as a token bucket: `burst` requests at once, `per_second` on average."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: requests left, time of the last one

    def seconds_to_wait(self, client: str) -> float:
        """Return 0 and count the request if the client may send one now; otherwise, the seconds until it may."""
        now = time.monotonic()
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._left[client] = (max(0.0, left - 1) if left >= 1 else left, now)
        if len(self._left) > MANY_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._per_second
