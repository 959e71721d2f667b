"""An HTTP service whose requests are limited by CL.TAKE: one token each.

GET / answers 200, or 429 and when to come back. The limit is that of the API key
in the header X-Api-Key, or of the caller's address. GET /health answers 200 for
as long as the service runs. See README.md for the environment.
"""

import json
import logging
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "8080"))
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
POLICY = (
    "CAPACITY", os.environ.get("LIMIT_CAPACITY", "100"),
    "REFILL", os.environ.get("LIMIT_REFILL", "10"),
    "INTERVAL", os.environ.get("LIMIT_INTERVAL_MS", "1000"),
)  # fmt: skip
# Without an answer in this time, Redis counts as down.
TIMEOUT = int(os.environ.get("REDIS_TIMEOUT_MS", "500")) / 1000
# What callers get then: "open" lets them in, "closed" answers 503.
FAIL = os.environ.get("FAIL", "open")
MAX_KEY = 128  # bytes of an API key

if FAIL not in ("open", "closed"):
    raise SystemExit("FAIL is open or closed")

client = redis.Redis.from_url(
    REDIS_URL,
    socket_timeout=TIMEOUT,
    socket_connect_timeout=TIMEOUT,
    # A take that was sent may have been made: sent again, it would be charged
    # twice.
    retry=Retry(NoBackoff(), 0),
)

# Whether the last take failed: a change is logged, not every request.
down = False


def seconds(milliseconds: int) -> str:
    """Rounded up, for who comes a moment early is refused again."""
    return str(-(-milliseconds // 1000))


def decide(key: str) -> tuple[int, dict[str, str]]:
    """The status of a request, and the headers that say why."""
    global down
    try:
        taken, capacity, remaining, retry_after, reset_after = client.execute_command(
            "CL.TAKE", f"limit:{key}", 1, *POLICY
        )
    except redis.RedisError as error:
        if not down:
            down = True
            logging.error("no answer from Redis, fail %s: %s", FAIL, error)
        return (200, {}) if FAIL == "open" else (503, {"Retry-After": "1"})
    if down:
        down = False
        logging.info("Redis answers again")
    headers = {"RateLimit-Limit": str(capacity), "RateLimit-Remaining": str(remaining)}
    if reset_after >= 0:  # -1: never full again
        headers["RateLimit-Reset"] = seconds(reset_after)
    if taken:
        return 200, headers
    if retry_after >= 0:
        headers["Retry-After"] = seconds(retry_after)
    return 429, headers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "demo", ""
    timeout = 30  # seconds that a connection may be idle
    wbufsize = -1  # headers and body in one write

    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(200, {})
        if self.path != "/":
            return self.answer(404, {})
        key = self.headers.get("X-Api-Key", self.client_address[0])
        if not 0 < len(key.encode()) <= MAX_KEY:
            return self.answer(400, {})
        self.answer(*decide(key))

    def send_error(self, code: int, *_) -> None:
        """What the base class refuses by itself: most often another method than GET."""
        # A body may follow, which nobody reads.
        end = {"Connection": "close"}
        if code == 501:
            return self.answer(405, {"Allow": "GET", **end})
        self.answer(code, end)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        body = json.dumps({"status": status}).encode() + b"\n"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, *_) -> None:
        """One line for each request is too much."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # connections that wait to be accepted


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    server = Server((HOST, PORT), Handler)
    # As the first process of a container it gets no default for signals. The
    # server stops from another thread than the one it runs in.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    logging.info("listening on %s:%s", *server.server_address)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
