"""python -m unittest: needs a server with the module at REDIS_URL."""

import os
import unittest

import redis.asyncio

from claw_asgi import RateLimit

NOBODY = "redis://127.0.0.1:1"


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
    await send({"type": "http.response.body", "body": b"hello"})


def by_user(scope):
    user = dict(scope["headers"]).get(b"x-user")
    return f"limit:asgi:{user.decode()}" if user else None


async def ask(app, user):
    """The status and the fields of the answer."""
    headers = [(b"x-user", user.encode())] if user else []
    sent = []

    async def send(message):
        sent.append(message)

    await app({"type": "http", "headers": headers}, None, send)
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    fields.pop("content-length", None)
    return sent[0]["status"], fields


class Limits(unittest.IsolatedAsyncioTestCase):
    def limited(self, url=None, **options):
        client = redis.asyncio.from_url(url or os.environ["REDIS_URL"], socket_timeout=20)
        self.addAsyncCleanup(client.aclose)
        policy = {"capacity": 2, "refill": 0, "fail_open": True, **options}
        return RateLimit(hello, redis=client, key=by_user, **policy)

    async def test_a_bucket_for_each_key(self):
        # One token in an hour, so that it does not matter how long this takes.
        app = self.limited(refill=1, interval_ms=3_600_000)
        for user, status, remaining, about, retry in [
            ("ann", 200, "1", 3600, False),
            ("ann", 200, "0", 7200, False),
            ("ann", 429, "0", 7200, True),
            ("bob", 200, "1", 3600, False),
        ]:
            answered, fields = await ask(app, user)
            with self.subTest(user=user, fields=fields):
                self.assertEqual(answered, status)
                self.assertEqual(fields["ratelimit-limit"], "2")
                self.assertEqual(fields["ratelimit-remaining"], remaining)
                self.assertIn(int(fields["ratelimit-reset"]), range(about - 60, about + 1))
                self.assertEqual("retry-after" in fields, retry)
                self.assertIn(int(fields.get("retry-after", 3600)), range(3540, 3601))
                self.assertEqual("x-app" in fields, status == 200)

    async def test_what_has_no_key_is_not_limited(self):
        app = self.limited()
        for _ in range(3):
            self.assertEqual(await ask(app, None), (200, {"x-app": "yes"}))

    async def test_what_can_never_be_has_no_time_to_come_back(self):
        app = self.limited(tokens=3)
        fields = {"ratelimit-limit": "2", "ratelimit-remaining": "2", "ratelimit-reset": "0"}
        self.assertEqual(await ask(app, "cleo"), (429, fields))

    async def test_without_redis_it_is_as_said(self):
        app = self.limited(NOBODY, fail_open=True)
        self.assertEqual(await ask(app, "ann"), (200, {"x-app": "yes"}))
        app = self.limited(NOBODY, fail_open=False)
        self.assertEqual(await ask(app, "ann"), (503, {}))


if __name__ == "__main__":
    unittest.main()
