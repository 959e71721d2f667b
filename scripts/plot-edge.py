#!/usr/bin/env python3
"""Draws docs/images/edge.svg: CPU time of a decision of claw-edge and of Limitador, of what
`make bench-edge` prints.

usage: make bench-edge >FILE and scripts/plot-edge.py FILE

Bars are medians of CPU seconds per 100,000 decisions: the service's, and beside it its Redis's.
"""

import re

from plotting import arguments, bar, line, text, write

WIDTH, LEFT, RIGHT, TOP, ROW, TITLE, FOOT = 760, 170, 175, 46, 20, 30, 16
LOADS = {
    "http 1": "HTTP, one hot key",
    "http 10000": "HTTP, 10,000 keys",
    "grpc 1": "gRPC, one hot key",
    "grpc 10000": "gRPC, 10,000 keys",
    "grpc 10000 3000/s": "gRPC, 10,000 keys, 3,000 requests/s",
}
ROWS = re.compile(r"(http|grpc) (\d+(?: \d+/s)?)\s+(claw-edge|limitador \w+)\s+([\d.]+)\s+([\d.]+)\s+[\d.]+\s+([\d.]+)")


def draw(printed):
    heading = next(row for row in printed.splitlines() if row.startswith("CPU seconds"))
    loads = {}
    for front, load, service, of_service, of_redis, ratio in ROWS.findall(printed):
        row = service, float(of_service), float(of_redis), float(ratio)
        loads.setdefault(LOADS[f"{front} {load}"], []).append(row)
    most = max(row[1] + row[2] for rows in loads.values() for row in rows)

    def x(seconds):
        return LEFT + seconds / most * (WIDTH - LEFT - RIGHT)

    bars, told, y = [], [], TOP
    for load, rows in loads.items():
        bars.append(text(16, y + TITLE - 10, load))
        y += TITLE
        for service, of_service, of_redis, ratio in rows:
            colour = "bar" if service == "claw-edge" else "other-bar"
            bars.append(text(LEFT - 8, y + 13, service, anchor="end"))
            bars.append(bar(LEFT, y + 2, x(of_service) - LEFT, ROW - 6, colour))
            bars.append(bar(x(of_service), y + 2, x(of_redis) - LEFT, ROW - 6, "orange-fill"))
            shown = f"{of_service + of_redis:.2f} s"
            if service != "claw-edge":
                shown += f", {ratio:.2f} times ours"
            bars.append(text(x(of_service + of_redis) + 6, y + 13, shown))
            told.append(f"{load}, {service}: {shown}")
            y += ROW
    grid = []
    for seconds in range(0, int(most) + 1, 2):
        grid.append(line([(x(seconds), TOP), (x(seconds), y + 6)], "grid" if seconds else "axis", 1))
        grid.append(text(x(seconds), y + 21, str(seconds), anchor="middle"))
    notes = [
        f"{heading}; orange: of Redis.",
        "limitador redis asks Redis as claw-edge does; redis_cached settles later, memory never.",
    ]
    y += 30
    for note in notes:
        y += FOOT
        bars.append(text(16, y, note))
    title = "CPU seconds for 100,000 decisions"
    write("edge.svg", WIDTH, y + FOOT, title, f"{'; '.join(told)}. {' '.join(notes)}", [*grid, text(16, 24, title), *bars])


if __name__ == "__main__":
    with open(*arguments(__doc__, 1), encoding="utf-8") as file:
        draw(file.read())
