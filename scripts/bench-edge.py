#!/usr/bin/env python3
"""What a decision of claw-edge costs: CPU seconds of the service and of its Redis for each
100,000 decisions, over HTTP and gRPC, beside Limitador if LIMITADOR names its program.

CPU time depends far less than a rate on what else the machine does, and what is left of that
is evened out by rounds in which all variants take turns. 64 requests are in flight all the time.
Over HTTP each has a connection of its own; over gRPC four connections have sixteen each, for Envoy has
one for each of its threads. The last load is no full one: 3,000 requests per second.

usage: scripts/bench-edge.py [--rounds 3] [--seconds 4] [--only WORD]

It needs wrk, and what `make bench-edge` builds.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
MODULE = os.environ.get("REDIS_CLAW_MODULE", str(TARGET / "libredis_claw.so"))
IN_FLIGHT = 64
# Far more than are asked for: what is measured is granted.
PLENTY = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")

LUA = """
local keys = {keys}
function request()
  local user = "user-" .. math.random(1, keys)
  return wrk.format("{method}", "{path}", {{{fields}}}, {body})
end
function done(summary) io.write("answers " .. summary.requests .. " wrong " .. summary.errors.status .. "\\n") end
"""
# What the services are asked over HTTP: a decision, with the fields that tell of the limit.
REQUESTS = {
    "claw-edge": dict(method="GET", path="/auth", fields='["x-user"]=user', body="nil"),
    "limitador": dict(
        method="POST",
        path="/check_and_report",
        fields='["content-type"]="application/json"',
        body="""'{"namespace":"bench","values":{"user":"' .. user .. '"},"delta":1,"""
        """"response_headers":"DRAFT_VERSION_03"}'""",
    ),
}
DESCRIPTORS = f"""
domain: bench
descriptors: [{{key: user, rate_limit: {{unit: day, requests_per_unit: {PLENTY}}}}}]
"""
# An adaptive limit beside the user's, whose loop runs ten times a second.
ADAPTIVE = f"""
limits: [{{name: route, capacity: {PLENTY}, refill: {PLENTY}, adaptive: {{mode: on, min: {PLENTY}, max: {PLENTY}, max_capacity: {PLENTY}}}}}]
"""
NAMED = f"""
- namespace: bench
  max_value: {PLENTY}
  seconds: 86400
  conditions: []
  variables: ["descriptors[0].user"]
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_kb(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))


def wait_for(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"bench-edge: nobody listens on port {port}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Load:
    front: str
    keys: int
    rate: int = 0  # requests per second, of all; 0: as many as are answered

    def __str__(self):
        return f"{self.front} {self.keys}" + (f" {self.rate}/s" if self.rate else "")


LOADS = [Load("http", 1), Load("http", 10_000), Load("grpc", 1), Load("grpc", 10_000), Load("grpc", 10_000, 3_000)]


class Service:
    """A service with a Redis of its own, that is asked over some of `http` and `grpc`."""

    def __init__(self, name, command, env, dir, fronts=("http", "grpc")):
        self.name, self.dir, self.fronts = name, dir, fronts
        self.redis_port, self.http, self.grpc, self.ops = (free_port() for _ in range(4))
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        self.redis = self.spawn(
            [server, "--port", str(self.redis_port), "--save", "", "--loadmodule", MODULE], {}
        )
        wait_for(self.redis_port)
        values = dict(
            redis=f"redis://127.0.0.1:{self.redis_port}", http=self.http, grpc=self.grpc, ops=self.ops, dir=dir
        )
        self.service = self.spawn(
            [word.format(**values) for word in command],
            {key: value.format(**values) for key, value in env.items()},
        )
        for port in (self.http, self.grpc):
            wait_for(port)

    def spawn(self, command, env):
        log = open(f"{self.dir}/{self.name}-{len(os.listdir(self.dir))}.log", "wb")
        return subprocess.Popen(command, env={"PATH": os.environ["PATH"], **env}, stdout=log, stderr=log, cwd=self.dir)

    def load(self, load, seconds):
        """Answers of so many seconds of load."""
        if load.front == "grpc":
            rate = [str(load.rate)] if load.rate else []
            output = run(
                [str(TARGET / "examples" / "rls_load"), f"127.0.0.1:{self.grpc}", str(seconds), str(load.keys), *rate]
            )
        else:
            script = Path(self.dir) / f"{self.name}.lua"
            script.write_text(LUA.format(keys=load.keys, **REQUESTS[self.name.split()[0]]))
            output = run(
                ["wrk", "-t", "1", "-c", str(IN_FLIGHT), "-d", f"{seconds}s", "-s", str(script),
                 f"http://127.0.0.1:{self.http}"]
            )
        answers, wrong = re.search(r"answers (\d+) wrong (\d+)", output).groups()
        if int(answers) == 0 or int(wrong) > 0:
            sys.exit(f"bench-edge: {self.name}, {load}: not all was granted:\n{output}")
        return int(answers)

    def measure(self, load, seconds):
        """CPU seconds of the service and of Redis for each 100,000 decisions, and their rate."""
        self.load(load, 1)
        before = cpu(self.service), cpu(self.redis)
        answers = self.load(load, seconds)
        scale = 100_000 / answers
        used = [(now - then) * scale for now, then in zip((cpu(self.service), cpu(self.redis)), before)]
        return used[0], used[1], answers / seconds


def run(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def end_children():
    """Also the one that was about to be started when a signal came, of which nothing here knows yet."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)


def services(dir):
    plenty = str(PLENTY)
    edge = {
        "REDIS_URL": "{redis}", "HTTP_ADDR": "127.0.0.1:{http}", "GRPC_ADDR": "127.0.0.1:{grpc}",
        "OPS_ADDR": "127.0.0.1:{ops}", "RLS_CONFIG": "{dir}/descriptors.yaml", "USER_HEADER": "x-user",
        "USER_CAPACITY": plenty, "USER_REFILL": plenty, "USER_INTERVAL": "1d",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
        # Who is not answered in time is let through, and would be counted as a decision.
        "DECISION_TIMEOUT": "5s",
    }
    program = os.environ.get("CLAW_EDGE", str(TARGET / "claw-edge"))
    yield Service("claw-edge", [program], edge, dir)
    # Descriptors of Envoy's have no adaptive limits.
    yield Service("claw-edge adaptive", [program], {**edge, "CONFIG": "{dir}/adaptive.yaml"}, dir, ("http",))
    limitador = os.environ.get("LIMITADOR")
    if not limitador:
        print("LIMITADOR is not set: claw-edge is measured alone.")
        return
    for storage in (["redis", "{redis}"], ["redis_cached", "{redis}"], ["memory"]):
        command = [
            limitador, "--http-ip", "127.0.0.1", "--http-port", "{http}", "--rls-ip", "127.0.0.1",
            "--rls-port", "{grpc}", "--rate-limit-headers", "DRAFT_VERSION_03", "{dir}/named.yaml", *storage,
        ]
        yield Service(f"limitador {storage[0]}", command, {}, dir)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--only", default="", help="loads whose name has this word")
    options = arguments.parse_args()
    if not shutil.which("wrk"):
        sys.exit("bench-edge: wrk is needed (Debian: wrk)")
    loads = [load for load in LOADS if options.only in str(load)]
    with tempfile.TemporaryDirectory() as dir:
        Path(dir, "descriptors.yaml").write_text(DESCRIPTORS)
        Path(dir, "named.yaml").write_text(NAMED)
        Path(dir, "adaptive.yaml").write_text(ADAPTIVE)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            report(list(services(dir)), loads, options)
        finally:
            end_children()


def report(running, loads, options):
    found = {}
    for number in range(options.rounds):
        for load in loads:
            # Each begins a round once: who comes first finds the machine cooler.
            turn = number % len(running)
            for service in (it for it in running[turn:] + running[:turn] if load.front in it.fronts):
                sample = service.measure(load, options.seconds)
                found.setdefault((load, service.name), []).append(sample)
    print(f"CPU seconds per 100,000 decisions, median of {options.rounds} interleaved rounds of {options.seconds} s")
    print(f"{'load':18} {'service':24} {'service':>8} {'Redis':>8} {'sum':>8} {'ratio':>7} {'rate/s':>8}")
    for load in loads:
        ours = [service + redis for service, redis, _ in found[load, "claw-edge"]]
        for service in (it for it in running if load.front in it.fronts):
            samples = found[load, service.name]
            sums = [service + redis for service, redis, _ in samples]
            # Of each round, since what else the machine did differs between rounds.
            ratio = statistics.median(theirs / mine for theirs, mine in zip(sums, ours))
            medians = [statistics.median(column) for column in zip(*samples)]
            print(
                f"{load!s:18} {service.name:24} {medians[0]:8.3f} {medians[1]:8.3f}"
                f" {statistics.median(sums):8.3f} {ratio:7.2f} {medians[2]:8.0f}"
            )
    for service in running:
        print(f"{service.name}: {rss_kb(service.service) / 1024:.1f} MB resident")


main()
