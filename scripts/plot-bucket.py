#!/usr/bin/env python3
"""Draws docs/images/bucket.svg: the level of a bucket while it is taken from, as a real server
answered, with the five numbers of a few calls.

usage: make plots, or scripts/plot-bucket.py REDIS_SERVER MODULE

The bucket holds 10 tokens and refills 2 a second. Its hash is read
every 20 ms, so the line is what was measured, and taken from at the times in CALLS.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time

POLICY = ["CAPACITY", "10", "REFILL", "2"]
# Seconds after the start, and the call.
CALLS = [
    (0.5, ["CL.TAKE", "k", "6", *POLICY]),
    (1.7, ["CL.TAKE", "k", "5", *POLICY]),
    (3.6, ["CL.TAKE", "k", "9", *POLICY]),
    (5.2, ["CL.SETTLE", "k", "5", "15"]),
]
SECONDS, LEAST, MOST = 11.0, -5, 11
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 340, 44, 20, 16, 40


class Connection:
    """As much of RESP2 as the replies of buckets need."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def call(self, words):
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        return self.reply()

    def reply(self):
        line = self.file.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        if kind == "*":
            return [self.reply() for _ in range(int(rest))]
        if kind == ":":
            return int(rest)
        if kind == "$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == "+":
            return rest
        raise RuntimeError(line)


def level(conn):
    """What the bucket holds now: its fields, and what 2 tokens a second have added since."""
    fields = conn.call(["HMGET", "k", "tokens", "timestamp"])
    if None in fields:
        return 10.0
    seconds, micros = (int(part) for part in conn.call(["TIME"]))
    gained = 2 * (seconds * 1_000_000 + micros - int(fields[1])) / 1e6
    return min(10.0, float(fields[0]) + gained)


def run(server, module):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", directory]
        process = subprocess.Popen(
            [server, *options, "--loadmodule", module], stdout=subprocess.DEVNULL
        )
        try:
            while not os.path.exists(path):
                time.sleep(0.01)
            conn = Connection(path)
            conn.call(["CL.POLICY", "k", *POLICY])
            conn.call(["CL.TAKE", "k", "0"])
            begun, points, calls, left = time.monotonic(), [], [], list(CALLS)
            while (now := time.monotonic() - begun) < SECONDS:
                if left and now >= left[0][0]:
                    _, words = left.pop(0)
                    points.append((now, level(conn)))
                    calls.append((now, words, conn.call(words)))
                points.append((time.monotonic() - begun, level(conn)))
                time.sleep(0.02)
            return points, calls
        finally:
            process.terminate()
            process.wait()


def draw(points, calls):
    def x(seconds):
        return LEFT + seconds / SECONDS * (WIDTH - LEFT - RIGHT)

    def y(tokens):
        return TOP + (MOST - tokens) / (MOST - LEAST) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>The level of a bucket of 10 tokens, 2 more each second</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tokens in range(-4, 11, 2):
        colour = "#444" if tokens == 0 else "#ddd"
        out.append(
            f'<path d="M{LEFT} {y(tokens):.1f}H{WIDTH - RIGHT}" stroke="{colour}"/>'
            f'<text x="{LEFT - 8}" y="{y(tokens) + 4:.1f}" text-anchor="end" fill="#444">{tokens}</text>'
        )
    for second in range(int(SECONDS) + 1):
        out.append(
            f'<text x="{x(second):.1f}" y="{HEIGHT - 14}" text-anchor="middle" fill="#444">{second} s</text>'
        )
    line = "L".join(f"{x(at):.1f} {y(tokens):.1f}" for at, tokens in points)
    out.append(f'<path d="M{line}" fill="none" stroke="#06c" stroke-width="2"/>')
    for place, (at, words, five) in enumerate(calls):
        shown = " ".join(word for word in words if word != "k" and word not in POLICY)
        high = TOP + 14 + 34 * (place % 2)
        after = min(tokens for when, tokens in points if at <= when < at + 0.1)
        colour = "#a00" if five[0] == 0 else "#222"
        out.append(
            f'<path d="M{x(at):.1f} {high + 18}V{y(after):.1f}" stroke="{colour}" stroke-dasharray="3 3"/>'
            f'<text x="{x(at) + 4:.1f}" y="{high}" fill="{colour}">{shown}</text>'
            f'<text x="{x(at) + 4:.1f}" y="{high + 15}" fill="{colour}">{five}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    place = os.path.join(os.path.dirname(__file__), "..", "docs", "images", "bucket.svg")
    picture = draw(*run(*sys.argv[1:]))
    with open(place, "w", encoding="ascii") as file:
        file.write(picture)
