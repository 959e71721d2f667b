#!/usr/bin/env python3
"""Simulated scenarios of the adaptive policy, played with real sockets: a private server with the module,
claw-edge, a backend, clients. Each is played under an operator's limit that is too high, on the path (drain-cap)
and off it (the network), for a minute each, and compared with what the simulation says of the same arrivals and
the same work.

usage: make adapt-sockets [SEEDS=from..to], or scripts/adapt-sockets.py [--seed FROM] [--scenario small:SEED]...

It has to be root, to put itself before what else the machine does. A run counts only if this program
was woken at most 2 ms late and a take was answered within 5 ms, both in 99 of 100 cases; one that does not is
repeated, three times at the most. What has to hold:

- those that the simulation tells apart by more than 0.03 of goodput are in its order;
- goodput differs from the simulation's by 0.03 at the most;
- on the path 95 % of the answers are within the SLA.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import signal
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from adaptive import EDGE, MODULE, TARGET, TOKEN, Connections, free_port, listens, process, quantile
from plotting import until

TRAIN = os.environ.get("CLAW_TRAIN", str(TARGET / "claw-train"))
FAMILIES = ("small", "other", "steps")
PLAYERS = {"static": ("off", "off_path"), "on_path": ("on", "on_path"), "off_path": ("on", "off_path")}
# Requests per second that the backend serves, at the most: all of it runs in a few interpreters on one machine.
LARGEST = 100
WOKEN_S, TAKEN_S, APART, NEAR, TRIES = 0.002, 0.005, 0.03, 0.03, 3

LIMITS = """
limits:
- name: shop
  capacity: {capacity}
  refill: {refill:.6f}
  adaptive: {{mode: {mode}, profile: {profile}, sla: {sla_ms}ms, nominal: '{nominal:.6f}', min: '{min:.6f}', max: '{max:.6f}',
              max_capacity: {max_capacity}, slew_percent: {slew_percent}}}
"""


def at(steps, t):
    """The factor that holds at a time."""
    return next((value for since, value in reversed(steps) if since <= t), 1.0)


async def backend(path):
    """As the simulated one: so many servers, one queue, what each request takes drawn beforehand."""
    scenario = json.loads(Path(path).read_text())
    servers, queue, busy = scenario["servers"], collections.deque(), 0
    loop = asyncio.get_running_loop()
    begun = 0.0

    def end(request, attempt):
        now = time.monotonic() - begun
        crowd = 1 + scenario["contention"] * min(len(queue) / servers, 20)
        until_s = now + scenario["requests"][request][1][attempt] * at(scenario["slowness"], now) * crowd
        for since, over in scenario["stalls"]:
            if over > now and since < until_s:
                until_s += over - max(since, now)
        return begun + until_s

    def serve():
        nonlocal busy
        while queue and busy < servers:
            request, attempt, done = queue.popleft()
            busy += 1
            loop.call_at(loop.time() + end(request, attempt) - time.monotonic(), finish, done)

    def finish(done):
        nonlocal busy
        busy -= 1
        if not done.cancelled():
            done.set_result(None)
        serve()

    async def answer(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, request, attempt = head.split(b" ", 2)[1].decode().split("/")
                status = b"503 Full"
                if len(queue) < 50 * servers:
                    done = loop.create_future()
                    queue.append((int(request), int(attempt), done))
                    serve()
                    await done
                    status = b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while said := await stdin.readline():
        begun = float(said)


class Run:
    def __init__(self, scenario, player, ports, backend):
        self.scenario, self.player, self.backend = scenario, player, backend
        self.front = Connections(ports["proxy"] if player == "on_path" else ports["http"])
        self.behind, self.redis_port = Connections(ports["backend"]), ports["redis"]
        self.good = self.late = 0
        self.latencies, self.overslept, self.takes, self.events = [], [], [], []

    def now(self):
        return time.monotonic() - self.begun

    async def attempt(self, request, attempt):
        """Whether the backend has answered."""
        path = f"/{request}/{attempt}"
        if self.player == "on_path":
            status, _ = await self.front.exchange("GET", path, (), b"")
            return status == 200
        status, _ = await self.front.exchange("GET", "/auth", (), b"")
        if status != 200:
            return False
        began = self.now()
        status, _ = await self.behind.exchange("GET", path, (), b"")
        if status == 200:
            stamp = {"timestamp": int(time.time() * 1000), "latencyMs": round((self.now() - began) * 1000, 3)}
            self.events.append({"userId": str(request), "itemId": str(attempt), "score": 5, "route": "shop", **stamp})
        return status == 200

    async def request(self, request, again):
        for attempt, wait in enumerate(again):
            asked = self.now()
            try:
                answered = await self.attempt(request, attempt)
            except (OSError, asyncio.IncompleteReadError):
                answered = False
            if answered:
                took = self.now() - asked
                is_good = took <= self.scenario["sla"]
                if self.now() > self.scenario["seconds"]:
                    return
                if self.now() > self.scenario["warm"]:
                    self.latencies.append(took)
                    self.good += is_good
                    self.late += not is_good
                # Who has waited for so long has asked again meanwhile, or goes away.
                if took <= max(5 * self.scenario["sla"], 1):
                    return
            if wait is None:
                return
            await asyncio.sleep(wait)

    async def send_events(self):
        fields = ["Content-Type: application/x-ndjson", f"Authorization: Bearer {TOKEN}"]
        while True:
            await asyncio.sleep(0.02)
            batch, self.events = self.events[:1000], self.events[1000:]
            if batch and self.player == "off_path":
                body = "".join(f"{json.dumps(event)}\n" for event in batch).encode()
                await self.front.ask("POST", "/api/v1/event", fields, body)

    async def measure_sleep(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.overslept.append(time.monotonic() - before - 0.01)

    async def measure_takes(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.redis_port)
        while True:
            await asyncio.sleep(0.02)
            before = time.monotonic()
            writer.write(b"*2\r\n$7\r\nCL.TAKE\r\n$5\r\nprobe\r\n")
            for _ in range(6):
                await reader.readline()
            self.takes.append(time.monotonic() - before)

    async def go(self):
        self.begun = time.monotonic() + 0.2
        self.backend.stdin.write(f"{self.begun}\n".encode())
        self.backend.stdin.flush()
        beside = [asyncio.ensure_future(it) for it in (self.send_events(), self.measure_sleep(), self.measure_takes())]
        clients = []
        for number, (begins, _, again) in enumerate(self.scenario["requests"]):
            await asyncio.sleep(max(0, begins - self.now()))
            clients.append(asyncio.ensure_future(self.request(number, again)))
        await asyncio.sleep(max(0, self.scenario["seconds"] - self.now()))
        for one in [*beside, *clients]:
            one.cancel()
        await asyncio.gather(*clients, *beside, return_exceptions=True)
        return self

    def goodput(self):
        return self.good / self.scenario["possible"]

    def woken(self):
        return quantile(self.overslept, 0.99)

    def taken(self):
        return quantile(self.takes, 0.99)


def run(text, scenario, player):
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    ports = {of: free_port() for of in ("redis", "http", "grpc", "ops", "proxy")}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(open(directory / "log", "w+b"))
        (directory / "scenario.json").write_text(text)
        mode, profile = PLAYERS[player]
        limits = directory / "limits.yaml"
        sla_ms = round(scenario["sla"] * 1000)
        limits.write_text(LIMITS.format(mode=mode, profile=profile, sla_ms=sla_ms, **scenario["limit"]))
        redis = [server, "--port", str(ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        stack.enter_context(process([*redis, "--loadmodule", os.path.abspath(MODULE)], log, stdout=log))
        command = [sys.executable, __file__, "--backend", str(directory / "scenario.json")]
        behind = stack.enter_context(process(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        ports["backend"] = int(behind.stdout.readline())
        settings = {f"{of.upper()}_ADDR": f"127.0.0.1:{ports[of]}" for of in ("http", "grpc", "ops")}
        settings.update(CONFIG=str(limits), API_TOKEN=TOKEN, DRAIN_NOTICE="0s")
        settings["REDIS_URL"] = f"redis://127.0.0.1:{ports['redis']}"
        if player == "on_path":
            settings.update(PROXY_ADDR=f"127.0.0.1:{ports['proxy']}", UPSTREAM=f"http://127.0.0.1:{ports['backend']}")
        try:
            until(lambda: listens(ports["redis"]), "Redis to start")
            edge = stack.enter_context(process([EDGE], log, stdout=log, env={**os.environ, **settings}))
            until(lambda: listens(ports["http"]) and listens(ports["ops"]), "claw-edge to start")
            done = asyncio.run(Run(scenario, player, ports, behind).go())
            if edge.poll() is not None:
                raise OSError("claw-edge has ended")
            return done
        except (OSError, TimeoutError) as error:
            log.seek(0)
            sys.exit(f"adapt-sockets: {error}\n{log.read().decode()}")


def counted(text, scenario, player):
    """The first run that counts."""
    for _ in range(TRIES):
        done = run(text, scenario, player)
        if done.woken() <= WOKEN_S and done.taken() <= TAKEN_S:
            return done
        print(
            f"  {player}: does not count, woken {done.woken() * 1000:.1f} ms late, a take {done.taken() * 1000:.1f} ms",
            flush=True,
        )
    return None


def drawn(family, seed):
    return subprocess.run([TRAIN, "scenario", family, str(seed)], check=True, capture_output=True, text=True).stdout


def scenarios(options):
    """Name and text of each: those that were named, or of each family the first that is small enough."""
    if options.scenario:
        for name in options.scenario:
            yield name, drawn(*name.split(":"))
        return
    for family in FAMILIES:
        for seed in range(options.seed, options.seed + 1_000):
            text = drawn(family, seed)
            if json.loads(text)["capacity"] <= LARGEST:
                yield f"{family}:{seed}", text
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=4_600_001)
    parser.add_argument("--scenario", action="append", help="family:seed")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        return asyncio.run(backend(options.backend))
    try:
        # What is started from here inherits it.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        sys.exit("adapt-sockets: only root may have a real-time priority, without which no run would count")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wrong = []
    for name, text in scenarios(options):
        scenario = json.loads(text)
        simulated = {player: of["goodput"] for player, of in scenario["simulated"].items()}
        print(f"{name}: {scenario['capacity']:.0f} requests per second, SLA {scenario['sla'] * 1000:.0f} ms", flush=True)
        real = {}
        for player in PLAYERS:
            done = counted(text, scenario, player)
            if done is None:
                wrong.append(f"{name}, {player}: no run counts")
                continue
            real[player] = done.goodput()
            p95 = quantile(done.latencies, 0.95) or 0.0
            print(
                f"  {player:8} goodput {done.goodput():.3f}, simulated {simulated[player]:.3f}; p95 {p95 * 1000:.0f} ms;"
                f" woken {done.woken() * 1000:.1f} ms late, a take {done.taken() * 1000:.1f} ms",
                flush=True,
            )
            if abs(done.goodput() - simulated[player]) > NEAR:
                wrong.append(f"{name}, {player}: goodput {done.goodput():.3f}, not {simulated[player]:.3f}")
            if player == "on_path" and p95 > scenario["sla"]:
                wrong.append(f"{name}: p95 on the path is {p95 * 1000:.0f} ms")
        for one in real:
            for other in real:
                if simulated[one] > simulated[other] + APART and real[one] <= real[other]:
                    wrong.append(f"{name}: {one} is not better than {other}")
    for line in wrong:
        print(f"MISSED {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
