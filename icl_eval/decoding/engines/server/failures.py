"""Why a request has no answer."""

KEY_HINT = "the key is read from the environment variable that engine.api_key_env names"


class PassingError(Exception):
    """A failure that may pass: the request is sent again."""

    def __init__(self, reason: str, wait: float | None = None):
        """Hold a failure.

        Args:
            reason: What happened, in a few words.
            wait: The seconds for which the server asks to wait; None if it does not say.
        """
        super().__init__(reason)
        self.wait = wait


class RefusedError(Exception):
    """A request that the server refuses, however often it is sent."""

    def __init__(self, status: int, reason: str):
        """Hold the status code and the server's sentence."""
        super().__init__(reason)
        self.status = status

    @property
    def is_about_key(self) -> bool:
        """Whether the server does not accept the key."""
        return self.status in (401, 403)
