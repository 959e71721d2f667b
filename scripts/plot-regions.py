#!/usr/bin/env python3
"""Draws docs/images/regions.svg: what two real servers that share one limit grant while they hear
each other, while they are cut apart, and after.

usage: make plots, or scripts/plot-regions.py REDIS_SERVER MODULE

Each is asked for about as much as both together may grant, and twice; every
answer is counted. Fails when more was granted than the bound allows.
"""

import contextlib
import socket
import sys
import time

from plotting import arguments, bar, line, started, text, until, write

CAPACITY, REFILL = 100, 50  # tokens, and tokens per second, of both together
# Seconds from the start at which the link is cut, is healed, and all ends.
CUT, HEALED, END = 6.0, 14.0, 22.0
# claw.partition-timeout-ms, the default, and what a cut may take to be noticed besides.
NOTICED = 2.0 + 0.3
TAKE = ["CL.TAKE", "shared", "1", "CAPACITY", str(CAPACITY), "REFILL", str(REFILL)]
# Seconds between two takes in each region, and of so many of them one is drawn.
PACE, DRAWN = 0.01, 5
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 52, 30, 110, 40


def one(seconds):
    """What one bucket would have granted at most."""
    return CAPACITY + REFILL * seconds


def bound(seconds):
    """(N-1)*(C + r*d) + r*d above it: until a cut is noticed, nothing is known of the other."""
    return one(seconds) + CAPACITY + 2 * REFILL * NOTICED


def free_ports():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def run(server, module):
    """Seconds, and what eu and us have granted up to then."""
    ports = free_ports()
    urls = [f"redis://127.0.0.1:{port}" for port in reversed(ports)]
    with contextlib.ExitStack() as stack:
        regions = [
            stack.enter_context(started(server, module, "replica-id", name, "peers", url, port=port))
            for name, url, port in zip(("eu", "us"), urls, ports)
        ]

        def link(urls):
            for conn, url in zip(regions, urls):
                conn.call("CONFIG", "SET", "claw.peers", url)

        for conn in regions:
            until(lambda: conn.info("claw", "claw_sync_peers_connected") == "1", "the other region")
        # Nothing listens on port 1.
        steps = [(CUT, ["redis://127.0.0.1:1"] * 2), (HEALED, urls)]
        granted, points = [0, 0], []
        begun = due = time.monotonic()
        while (now := time.monotonic() - begun) < END:
            if steps and now >= steps[0][0]:
                link(steps.pop(0)[1])
            for place, conn in enumerate(regions):
                granted[place] += conn.call(*TAKE)[0]
            points.append((time.monotonic() - begun, *granted))
            due += PACE
            time.sleep(max(0.0, due - time.monotonic()))
        return regions[0].version(), points


def draw(version, points):
    most = bound(END)

    def x(seconds):
        return LEFT + seconds / END * (WIDTH - LEFT - RIGHT)

    def y(tokens):
        return TOP + (most - tokens) / most * (HEIGHT - TOP - BOTTOM)

    drawn = [*points[::DRAWN], points[-1]]
    parts = [bar(x(CUT), TOP, x(HEALED) - x(CUT), y(0) - TOP, "shade")]
    for tokens in range(0, int(most), 200):
        parts.append(line([(LEFT, y(tokens)), (WIDTH - RIGHT, y(tokens))], "grid" if tokens else "axis", 1))
        parts.append(text(LEFT - 8, y(tokens) + 4, str(tokens), anchor="end"))
    for second in range(0, int(END) + 1, 2):
        parts.append(text(x(second), HEIGHT - 14, f"{second} s", anchor="middle"))
    for begin, end, what in [
        (0, CUT, "they hear each other"),
        (CUT, HEALED, "the link is cut"),
        (HEALED, END, "it is healed"),
    ]:
        parts.append(text(x((begin + end) / 2), TOP - 10, what, anchor="middle"))
    # What is drawn below comes first.
    at, eu, us = points[-1]
    lines = [
        ("bound", "red", "6 4", [(s, bound(s)) for s in (0, END)]),
        ("one bucket", "axis", "2 3", [(s, one(s)) for s in (0, END)]),
        ("granted in eu", "orange", "", [(s, eu) for s, eu, _ in drawn]),
        ("in us", "green", "8 5", [(s, us) for s, _, us in drawn]),
        ("together", "blue", "", [(s, eu + us) for s, eu, us in drawn]),
    ]
    lowest = 0.0
    for name, colour, dashes, through in sorted(lines, key=lambda one: -one[3][-1][1]):
        parts.append(line([(x(s), y(tokens)) for s, tokens in through], colour, 2, dashes))
        # Names that would be written over each other stand below each other.
        lowest = max(lowest + 15, y(through[-1][1]) + 4)
        fill = "text" if colour == "axis" else f"{colour}-fill"
        parts.append(text(WIDTH - RIGHT + 6, lowest, name, fill))
    parts.append(text(LEFT + 8, TOP + 16, "tokens granted"))
    parts.append(text(WIDTH - RIGHT - 8, y(0) - 10, f"two servers on one machine, {version}", anchor="end"))
    write(
        "regions.svg",
        WIDTH,
        HEIGHT,
        f"What two regions grant of one limit of {CAPACITY} tokens and {REFILL} a second",
        f"Granted over {END:.0f} seconds. The link is cut at {CUT:.0f} s and healed at {HEALED:.0f} s. At the end "
        f"{eu + us} tokens are granted, {eu} in eu and {us} in us; one bucket would have granted {one(at):.0f}, "
        f"and the bound is {bound(at):.0f}.",
        parts,
    )


if __name__ == "__main__":
    ran, measured = run(*arguments(__doc__, 2))
    for seconds, eu, us in measured:
        if eu + us > bound(seconds):
            sys.exit(f"plot-regions: {eu + us} tokens at {seconds:.1f} s are more than the bound")
    draw(ran, measured)
