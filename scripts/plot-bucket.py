#!/usr/bin/env python3
"""Draws docs/images/bucket.svg: the level of a bucket while it is taken from, as a real server
answered, with the five numbers of a few calls.

usage: make plots, or scripts/plot-bucket.py REDIS_SERVER MODULE

The bucket holds 10 tokens and refills 2 a second. Its hash is read
every 20 ms, so the line is what was measured, and taken from at the times in CALLS.
"""

import time

from plotting import arguments, line, started, text, write

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


def level(conn):
    """What the bucket holds now: its fields, and what 2 tokens a second have added since."""
    fields = conn.call("HMGET", "k", "tokens", "timestamp")
    if None in fields:
        return 10.0
    seconds, micros = (int(part) for part in conn.call("TIME"))
    gained = 2 * (seconds * 1_000_000 + micros - int(fields[1])) / 1e6
    return min(10.0, float(fields[0]) + gained)


def run(server, module):
    with started(server, module) as conn:
        conn.call("CL.POLICY", "k", *POLICY)
        conn.call("CL.TAKE", "k", "0")
        begun, points, calls, left = time.monotonic(), [], [], list(CALLS)
        while (now := time.monotonic() - begun) < SECONDS:
            if left and now >= left[0][0]:
                _, words = left.pop(0)
                points.append((now, level(conn)))
                calls.append((now, words, conn.call(*words)))
            points.append((time.monotonic() - begun, level(conn)))
            time.sleep(0.02)
        return points, calls


def draw(points, calls):
    def x(seconds):
        return LEFT + seconds / SECONDS * (WIDTH - LEFT - RIGHT)

    def y(tokens):
        return TOP + (MOST - tokens) / (MOST - LEAST) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tokens in range(-4, 11, 2):
        colour = "axis" if tokens == 0 else "grid"
        parts.append(line([(LEFT, y(tokens)), (WIDTH - RIGHT, y(tokens))], colour, 1))
        parts.append(text(LEFT - 8, y(tokens) + 4, str(tokens), anchor="end"))
    for second in range(int(SECONDS) + 1):
        parts.append(text(x(second), HEIGHT - 14, f"{second} s", anchor="middle"))
    parts.append(line([(x(at), y(tokens)) for at, tokens in points], "blue"))
    told = []
    for place, (at, words, five) in enumerate(calls):
        shown = " ".join(word for word in words if word != "k" and word not in POLICY)
        told.append(f"{shown} answers {five}")
        high = TOP + 14 + 34 * (place % 2)
        after = min(tokens for when, tokens in points if at <= when < at + 0.1)
        stroke, fill = ("red", "red-fill") if five[0] == 0 else ("axis", "text")
        parts.append(line([(x(at), high + 18), (x(at), y(after))], stroke, 1, "3 3"))
        parts.append(text(x(at) + 4, high, shown, fill))
        parts.append(text(x(at) + 4, high + 15, str(five), fill))
    write(
        "bucket.svg",
        WIDTH,
        HEIGHT,
        "The level of a bucket of 10 tokens, 2 more each second",
        f"A line that rises by 2 a second up to 10, and falls with each call that is granted: {'; '.join(told)}.",
        parts,
    )


if __name__ == "__main__":
    draw(*run(*arguments(__doc__, 2)))
