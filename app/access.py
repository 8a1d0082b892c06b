"""Who may act as the teacher: whoever knows the token."""

import hmac
import secrets

from pydantic import SecretStr

from app.limits import RateLimiter

WRONG_PER_SECOND, WRONG_BURST = 0.2, 10  # wrong tokens per client


class TooManyTokens(RuntimeError):
    """The client has shown too many wrong tokens, and must wait for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class TeacherAccess:
    """Checks the token, and the key that it is exchanged for.

    A token can be guessed, if somebody chose it, so wrong ones are limited. While a client is over the limit, its right
    token is refused, too. A key is random and new at each start, so it needs no limit: a teacher who is in stays in,
    whatever else comes from the same address.
    """

    def __init__(self, token: SecretStr | None) -> None:
        """Without a token, make a random one: `printed` is for whoever starts the server."""
        self.printed = None if token else secrets.token_urlsafe(16)
        self._token = self.printed or (token.get_secret_value() if token else "")
        self.key = secrets.token_urlsafe(32)
        self._wrong = RateLimiter(WRONG_PER_SECOND, WRONG_BURST)

    def admits(self, client: str, shown: str) -> bool:
        """Return whether what a client shows is the token or the key. Raises TooManyTokens. Takes the same time however
        much of it is right.
        """
        if _same(shown, self.key):
            return True
        seconds = self._wrong.seconds_to_wait(client)
        if seconds:
            raise TooManyTokens(seconds)
        right = _same(shown, self._token)
        if right:
            self._wrong.give_back(client)
        return right


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
