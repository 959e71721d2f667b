"""Rate limiting for ASGI applications: one CL.TAKE before each request.

    app = RateLimit(
        app,
        redis=redis.asyncio.from_url("redis://127.0.0.1:6379", socket_timeout=0.25),
        key=lambda scope: f"limit:{scope['client'][0]}",
        capacity=100,
        refill=10,
        fail_open=True,
    )
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Optional

import redis.asyncio
import redis.exceptions

__all__ = ["RateLimit"]

log = logging.getLogger(__name__)


class RateLimit:
    """Lets a request through if its bucket has the tokens, else answers 429.

    key: the bucket of a request, by its scope; None for one that is not limited.
    capacity, refill, interval_ms: the policy; `refill` tokens come back in each interval.
    tokens: what a request costs.
    fail_open: what to do when Redis gives no answer: True lets requests through without
        a limit, False answers 503. How long to wait is the client's `socket_timeout`.
    """

    def __init__(
        self,
        app: Callable,
        *,
        redis: redis.asyncio.Redis,
        key: Callable[[dict], Optional[str]],
        capacity: int,
        refill: float,
        interval_ms: int = 1000,
        tokens: int = 1,
        fail_open: bool,
    ) -> None:
        self.app = app
        self.redis = redis
        self.key = key
        self.tokens = tokens
        self.policy = ("CAPACITY", capacity, "REFILL", refill, "INTERVAL", interval_ms)
        self.fail_open = fail_open

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        key = self.key(scope) if scope["type"] == "http" else None
        if key is None:
            await self.app(scope, receive, send)
            return
        try:
            taken, capacity, remaining, retry_after, reset_after = await self.redis.execute_command(
                "CL.TAKE", key, self.tokens, *self.policy
            )
        except redis.exceptions.RedisError as error:
            log.warning("no answer about %s: %s", key, error)
            if self.fail_open:
                await self.app(scope, receive, send)
            else:
                await answer(send, 503, [])
            return

        fields = [
            (b"ratelimit-limit", number(capacity)),
            (b"ratelimit-remaining", number(remaining)),
            # -1 is never: a bucket that does not refill.
            *([(b"ratelimit-reset", seconds(reset_after))] if reset_after >= 0 else []),
        ]
        if taken != self.tokens:
            # Waiting does not help a request that costs more than the bucket ever holds.
            if retry_after >= 0:
                fields.append((b"retry-after", seconds(retry_after)))
            await answer(send, 429, fields)
            return

        async def send_with_fields(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            await send(message)

        await self.app(scope, receive, send_with_fields)


async def answer(send: Callable, status: int, fields: list[tuple[bytes, bytes]]) -> None:
    fields = [*fields, (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b""})


def number(value: int) -> bytes:
    return str(value).encode()


def seconds(milliseconds: int) -> bytes:
    """Rounded up: whoever waits that long is served."""
    return number(-(-milliseconds // 1000))
