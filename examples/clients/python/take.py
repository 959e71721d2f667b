"""Takes tokens for one user until it is refused, waits as told, takes again.

usage: python take.py [key]
The server is REDIS_URL, or redis://127.0.0.1:6379.
"""

import os
import sys
import time
from dataclasses import dataclass

import redis


@dataclass(frozen=True)
class Decision:
    status: int  # 200, or 429 when refused
    remaining: int  # whole tokens left
    retry_after_ms: int  # 0 when granted, -1 when it can never be


def take(client: redis.Redis, key: str, tokens: int = 1) -> Decision:
    taken, _capacity, remaining, retry_after_ms, _reset_after_ms = client.execute_command(
        "CL.TAKE", key, tokens, "CAPACITY", 3, "REFILL", 1, "INTERVAL", 2000
    )
    return Decision(200 if taken == tokens else 429, remaining, retry_after_ms)


def main() -> None:
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    key = sys.argv[1] if len(sys.argv) > 1 else "limit:user:42"

    decision = take(client, key)
    while decision.status == 200:
        print(f"{decision.status} granted, {decision.remaining} left")
        decision = take(client, key)
    print(f"{decision.status} refused, retry in {decision.retry_after_ms} ms")

    if decision.retry_after_ms < 0:
        sys.exit("more tokens than the bucket can hold: waiting would not help")
    time.sleep(decision.retry_after_ms / 1000)
    decision = take(client, key)
    print(f"{decision.status} after waiting, {decision.remaining} left")


if __name__ == "__main__":
    main()
