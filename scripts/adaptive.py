#!/usr/bin/env python3
"""The adaptive policy at work: the same load on a small backend, under a limit that is too high, behind
claw-edge as a proxy, and with claw-edge beside the path, which hears of requests by events.

The backend serves 100 requests a second, half of that while it is slow; its queue is first come, first served.
Clients that are refused ask again, up to three times, and wait two seconds for an answer. Each run has a
private server with the module, a claw-edge and a backend of its own. A line a second tells how it goes; at the end
there are a table and docs/images/adaptive.svg.

usage: make adaptive, or scripts/adaptive.py [--only static|on_path|off_path]... [--burn] [--real-time]

The backend only waits. With --burn it computes instead, as much for each request as takes as long on a processor of its
own, on two threads for which Redis, claw-edge and the clients leave less than that; what it serves is then less than is
counted with. With --only or --burn nothing is drawn. --real-time, for root, puts all of it before what else the machine does. J is what was done within the SLA, less half of what was done later, as a
share of what could have been done: each second's fresh requests, or what the backend serves in it.
"""

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import hashlib
import json
from math import log
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from plotting import bar, line, text, until, write

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
MODULE = os.environ.get("REDIS_CLAW_MODULE", str(TARGET / "libredis_claw.so"))
EDGE = os.environ.get("CLAW_EDGE", str(TARGET / "claw-edge"))

# Seconds, and the fresh requests that come in each of them.
STEPS = [(5, 60), (5, 150), (5, 250), (5, 150), (5, 60)]
SECONDS = sum(seconds for seconds, _ in STEPS)
# From second to second the backend takes twice as long.
SLOW = (15, 20)
WORKERS, SERVICE_S, QUEUE = 4, 0.04, 400
# The same capacity, as computing.
BURN_WORKERS, BURN_S = 2, 0.02
SLA_S, PATIENCE_S, ATTEMPTS = 0.2, 2.0, 3
TOKEN = "of-this-run"

LIMITS = """
limits:
- name: shop
  capacity: 40
  refill: 400
  adaptive: {{mode: {mode}, profile: {profile}, sla: 200ms, nominal: 100, min: 5, max: 2000}}
"""
# What is run: its name here and in the picture, its limit, and its colour.
RUNS = {
    "static": ("static limit", dict(mode="off", profile="off_path"), "red"),
    "on_path": ("on the path: drain-cap", dict(mode="on", profile="on_path"), "blue"),
    "off_path": ("off the path: learned", dict(mode="on", profile="off_path"), "green"),
}


def capacity(second):
    """Requests that the backend serves in that second."""
    full = WORKERS / SERVICE_S
    return full / 2 if SLOW[0] <= second < SLOW[1] else full


def arrivals():
    """When fresh requests come: the same in each run."""
    randomness, begin = random.Random(1), 0.0
    for seconds, rate in STEPS:
        at = begin + randomness.expovariate(rate)
        while at < begin + seconds:
            yield at
            at += randomness.expovariate(rate)
        begin += seconds


# The backend, a process of its own. On its standard input is how many times as long as usual it takes; it ends with that.


def burn(rounds):
    # Outside the interpreter's lock.
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)


def rounds_per_second():
    """Of `burn`, on a processor of its own: the most of some tries."""
    def measure():
        begin = time.perf_counter()
        burn(20_000)
        return 20_000 / (time.perf_counter() - begin)

    return max(measure() for _ in range(10))


async def backend(burns):
    queue, randomness, slower = collections.deque(), random.Random(2), 1.0
    free = asyncio.Semaphore(0)
    count = BURN_WORKERS if burns else WORKERS
    pool = concurrent.futures.ThreadPoolExecutor(count)
    rounds = rounds_per_second() if burns else 0

    async def serve_one(times):
        if burns:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, burn, int(rounds * BURN_S * times))
        else:
            await asyncio.sleep(SERVICE_S * times)

    async def work():
        while True:
            await free.acquire()
            done = queue.popleft()
            # A caller that is gone is served all the same: few services notice.
            await serve_one(slower * randomness.uniform(0.5, 1.5))
            if not done.cancelled():
                done.set_result(None)

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                status = b"500 Internal Server Error"
                if len(queue) < QUEUE:
                    done = asyncio.get_running_loop().create_future()
                    queue.append(done)
                    free.release()
                    await done
                    status = b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while said := await stdin.readline():
        slower = float(said)
    for worker in workers:
        worker.cancel()


# The clients.


class Connections:
    """HTTP/1.1 to one port; those that are idle are used again."""

    def __init__(self, port):
        self.port, self.idle = port, []

    async def ask(self, method, path, headers=(), body=b""):
        """The status and the body of the answer; None when none came in time, or the connection broke."""
        try:
            return await asyncio.wait_for(self.exchange(method, path, headers, body), PATIENCE_S)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            return None, b""

    async def exchange(self, method, path, headers, body):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        whole = False
        try:
            head = [f"{method} {path} HTTP/1.1", "Host: shop.test", f"Content-Length: {len(body)}", *headers, "", ""]
            writer.write("\r\n".join(head).encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "transfer-encoding: chunked" in head:
                answer = b""
                while size := int(await reader.readline(), 16):
                    answer += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                length = head.partition("content-length:")[2].split("\r\n", 1)[0]
                answer = await reader.readexactly(int(length or 0))
            whole = "connection: close" not in head
            return int(head.split(" ", 2)[1]), answer
        finally:
            if whole:
                self.idle.append((reader, writer))
            else:
                writer.close()


@dataclass
class Second:
    fresh: int = 0
    offered: int = 0
    admitted: int = 0
    in_sla: int = 0
    late: int = 0
    latencies: list = field(default_factory=list)
    rate: float = None
    cap: float = None

    def p95(self):
        return quantile(self.latencies, 0.95)


def quantile(values, share):
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)] if values else None


class Run:
    def __init__(self, name, ports, backend):
        self.name, self.backend = name, backend
        self.front = Connections(ports["proxy"] if name == "on_path" else ports["http"])
        self.behind, self.ops = Connections(ports["backend"]), Connections(ports["ops"])
        self.events, self.overslept = [], []
        self.refused_events = 0
        self.seconds = collections.defaultdict(Second)
        self.randomness = random.Random(3)
        self.begun = time.monotonic()

    def now(self):
        return time.monotonic() - self.begun

    def second(self):
        return self.seconds[int(self.now())]

    async def request(self, number):
        """A client with one wish."""
        self.second().fresh += 1
        for _ in range(ATTEMPTS):
            self.second().offered += 1
            asked = self.now()
            if self.name == "on_path":
                status, _ = await self.front.ask("GET", "/item")
            else:
                status, _ = await self.front.ask("GET", "/auth")
                if status == 200:
                    self.seconds[int(asked)].admitted += 1
                    status, _ = await self.behind.ask("GET", "/item")
                    self.tell(number, self.now() - asked, status)
            # 503: as much is in flight as the backend can take.
            if status not in (429, 503):
                break
            await asyncio.sleep(self.randomness.uniform(0.25, 0.75))
        else:
            return
        took = self.now() - asked
        if self.name == "on_path":
            self.seconds[int(asked)].admitted += 1
        done = self.second()
        done.latencies.append(took)
        if status == 200 and took <= SLA_S:
            done.in_sla += 1
        else:
            done.late += 1

    def tell(self, number, took, status):
        event = {"userId": f"user-{number % 97}", "itemId": f"item-{number}", "score": 4}
        stamp = {"timestamp": int(time.time() * 1000), "latencyMs": round(took * 1000, 1), "route": "shop"}
        # 499: nobody waited for the answer any more.
        self.events.append({**event, **stamp, "status": status or 499})

    async def send_events(self):
        fields = ["Content-Type: application/x-ndjson", f"Authorization: Bearer {TOKEN}"]
        while True:
            await asyncio.sleep(0.1)
            batch, self.events = self.events[:1000], self.events[1000:]
            if batch and self.name == "off_path":
                body = "".join(f"{json.dumps(event)}\n" for event in batch).encode()
                status, answer = await self.front.ask("POST", "/api/v1/event", fields, body)
                accepted = json.loads(answer)["accepted"] if status == 200 else 0
                self.refused_events += len(batch) - accepted

    async def measure_sleep(self):
        """How late this program is woken: what it measures cannot be more exact."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.overslept.append(time.monotonic() - before - 0.01)

    async def policy(self):
        """The rate and the cap on what is in flight that hold for the route; None for what there is not."""
        _, page = await self.ops.ask("GET", "/metrics")
        rows = [row for row in page.decode().splitlines() if 'route="shop"' in row]

        def value(name):
            return next((float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(name + "{")), None)

        return value("rl_policy_refill_rate"), value("edge_inflight_cap")

    async def tell_seconds(self):
        print(f"\n{RUNS[self.name][0]}\n  second offered admitted in SLA  p95 ms  policy/s  cap", flush=True)
        for number in range(SECONDS):
            if number in SLOW:
                self.backend.stdin.write(b"2\n" if number == SLOW[0] else b"1\n")
                self.backend.stdin.flush()
            await asyncio.sleep(max(0, number + 1 - self.now()))
            second = self.seconds[number]
            second.rate, second.cap = await self.policy()
            p95 = f"{second.p95() * 1000:.0f}" if second.latencies else "-"
            # -1 is no cap.
            rate, cap = ("-" if value in (None, -1) else f"{value:.0f}" for value in (second.rate, second.cap))
            counts = f"{second.offered:7} {second.admitted:8} {second.in_sla:6}"
            print(f"  {number:6} {counts} {p95:>7} {rate:>9} {cap:>4}", flush=True)

    async def go(self):
        self.begun = time.monotonic()
        beside = [self.send_events(), self.measure_sleep()]
        beside = [asyncio.ensure_future(one) for one in beside]
        telling = asyncio.ensure_future(self.tell_seconds())
        clients = []
        for number, at in enumerate(arrivals()):
            await asyncio.sleep(max(0, at - self.now()))
            clients.append(asyncio.ensure_future(self.request(number)))
        await asyncio.gather(telling, *clients)
        for one in beside:
            one.cancel()
        return self

    def summary(self):
        seconds = self.seconds.values()
        ideal = sum(min(self.seconds[second].fresh, capacity(second)) for second in range(SECONDS))
        good, late = (sum(getattr(second, name) for second in seconds) for name in ("in_sla", "late"))
        p95 = quantile([latency for second in seconds for latency in second.latencies], 0.95)
        return {
            "goodput": f"{good / ideal:.3f}",
            "late": f"{late / max(good + late, 1):.3f}",
            "p95 ms": f"{p95 * 1000:.0f}",
            "J": f"{(good - 0.5 * late) / ideal:+.3f}",
            "woken late ms": f"{quantile(self.overslept, 0.99) * 1000:.1f}",
        }


# One run after another.


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def process(command, log, **options):
    started = subprocess.Popen(command, stderr=log, **options)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def run(name, burns):
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    ports = {of: free_port() for of in ("redis", "http", "grpc", "ops", "proxy")}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(open(directory / "log", "w+b"))
        limits = directory / "limits.yaml"
        limits.write_text(LIMITS.format(**RUNS[name][1]))
        redis = [server, "--port", str(ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        stack.enter_context(process([*redis, "--loadmodule", os.path.abspath(MODULE)], log, stdout=log))
        backend = [sys.executable, __file__, "--backend", *(["--burn"] if burns else [])]
        backend = process(backend, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        backend = stack.enter_context(backend)
        ports["backend"] = int(backend.stdout.readline())
        settings = dict(
            CONFIG=str(limits),
            REDIS_URL=f"redis://127.0.0.1:{ports['redis']}",
            **{f"{of.upper()}_ADDR": f"127.0.0.1:{ports[of]}" for of in ("http", "grpc", "ops")},
            API_TOKEN=TOKEN,
            DRAIN_NOTICE="0s",
        )
        if name == "on_path":
            settings.update(PROXY_ADDR=f"127.0.0.1:{ports['proxy']}", UPSTREAM=f"http://127.0.0.1:{ports['backend']}")
        try:
            until(lambda: listens(ports["redis"]), "Redis to start")
            edge = stack.enter_context(process([EDGE], log, stdout=log, env={**os.environ, **settings}))
            until(lambda: listens(ports["http"]) and listens(ports["ops"]), "claw-edge to start")
            done = asyncio.run(Run(name, ports, backend).go())
            if edge.poll() is not None:
                raise OSError("claw-edge has ended")
            return done
        except (OSError, TimeoutError) as error:
            log.seek(0)
            sys.exit(f"adaptive: {error}\n{log.read().decode()}")


# The picture.

WIDTH, LEFT, RIGHT, HEIGHT = 760, 56, 16, 190
TOPS = (50, 290)
SCALE_MS = (20, 50, 100, 200, 500, 1000, 2000)


def draw(runs):
    def x(second):
        return LEFT + second / SECONDS * (WIDTH - LEFT - RIGHT)

    most = max(rate for _, rate in STEPS) * 1.1

    def y(rate):
        return TOPS[0] + HEIGHT * (1 - rate / most)

    def log_y(ms):
        # Equal factors are equally far apart.
        ratio = max(ms, SCALE_MS[0]) / SCALE_MS[0]
        whole = SCALE_MS[-1] / SCALE_MS[0] * 1.2
        return TOPS[1] + HEIGHT * (1 - min(log(ratio) / log(whole), 1))

    parts = [bar(x(SLOW[0]), top, x(SLOW[1]) - x(SLOW[0]), HEIGHT, "shade") for top in TOPS]
    parts.append(text(x(SLOW[0]) + 4, TOPS[0] + 14, "the backend is slow"))
    for rate in range(0, int(most), 50):
        parts.append(line([(LEFT, y(rate)), (WIDTH - RIGHT, y(rate))], "axis" if rate == 0 else "grid", 1))
        parts.append(text(LEFT - 8, y(rate) + 4, str(rate), anchor="end"))
    for ms in SCALE_MS:
        parts.append(line([(LEFT, log_y(ms)), (WIDTH - RIGHT, log_y(ms))], "axis" if ms == 200 else "grid", 1))
        parts.append(text(LEFT - 8, log_y(ms) + 4, str(ms), anchor="end"))
    for second in range(0, SECONDS + 1, 5):
        for top in TOPS:
            parts.append(text(x(second), top + HEIGHT + 16, f"{second} s", anchor="middle"))
    steps, served, begin = [], [], 0
    for seconds, rate in STEPS:
        steps += [(x(begin), y(rate)), (x(begin + seconds), y(rate))]
        begin += seconds
    for second in range(SECONDS):
        served += [(x(second), y(capacity(second))), (x(second + 1), y(capacity(second)))]
    parts += [line(steps, "axis", 1, "2 3"), line(served, "axis", 1, "8 3")]
    parts.append(text(LEFT, TOPS[0] - 10, "Done within the SLA, requests per second (dots: fresh ones; dashes: what the backend serves)"))
    parts.append(text(LEFT, TOPS[1] - 10, "Latency that 95 % did not exceed, ms (the SLA is 200)"))
    told, place = [], TOPS[1] + HEIGHT + 40
    for number, done in enumerate(runs):
        name, _, colour = RUNS[done.name]
        seconds = [done.seconds[second] for second in range(SECONDS)]
        parts.append(line([(x(at + 0.5), y(second.in_sla)) for at, second in enumerate(seconds)], colour))
        slow = [(x(at + 0.5), log_y(second.p95() * 1000)) for at, second in enumerate(seconds) if second.latencies]
        parts.append(line(slow, colour))
        summary = done.summary()
        said = f"{name}: goodput {summary['goodput']}, J {summary['J']}, p95 {summary['p95 ms']} ms"
        parts += [line([(LEFT, place - 4), (LEFT + 24, place - 4)], colour), text(LEFT + 32, place, said)]
        told.append(said)
        place += 18
    title = "Goodput and latency of a small backend under three limits"
    write("adaptive.svg", WIDTH, place, title, f"{'; '.join(told)}.", [text(16, 22, title), *parts])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=RUNS)
    parser.add_argument("--burn", action="store_true")
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        return asyncio.run(backend(options.burn))
    if options.real_time:
        # What is started from here inherits it.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    # What was started ends with this program, however that ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    runs = [run(name, options.burn) for name in options.only or RUNS]
    columns = list(runs[0].summary())
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for done in runs:
        print(f"| {RUNS[done.name][0]} | {' | '.join(done.summary().values())} |")
        if done.refused_events:
            print(f"adaptive: {done.refused_events} events were not accepted", file=sys.stderr)
    if not options.only and not options.burn:
        draw(runs)


if __name__ == "__main__":
    main()
