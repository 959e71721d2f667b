#!/usr/bin/env python3
"""Draws docs/images/bench.svg: how many times as fast as the Lua script CL.TAKE and its rivals
are, of what `make bench` prints.

usage: make plots, or make bench >FILE and scripts/plot-bench.py FILE

Bars are medians over all rounds; a thin line goes from the least of a round to the
greatest. What was not measured is left out, and redis-cell is said to be missing.
"""

import re

from plotting import arguments, bar, line, text, write

BASE, CELL = "/ Lua", "redis-cell CL.THROTTLE"
# The tables of the picture: a title, what the printed table's heading begins with, and rows of it.
TABLES = [
    (
        "The policy in the call",
        "Pipelined",
        ["CL.TAKE, policy in the call", "CL.THROTTLE", CELL, "Lua token bucket"],
    ),
    (
        "The policy on the server",
        "Pipelined",
        ["CL.TAKE, rule", "CL.TAKE", "CL.TAKE, refused", "CL.TAKE, pinned policy"],
    ),
    ("No limit at all", "Pipelined", ["HSET, two fields"]),
]
OURS = "CL."
WIDTH, LEFT, RIGHT, TOP, ROW, TITLE, FOOT = 760, 190, 150, 46, 22, 34, 16


def read(printed):
    """The header by name, and of each printed table by its heading the rows: the ratio to the base
    as median, least and greatest."""
    head, *tables = [block.splitlines() for block in printed.strip().split("\n\n")]
    header = {line[:10].strip(): line[10:] for line in head}
    ratios = {}
    for heading, *rows in tables:
        if not rows or "requests/s" not in rows[0]:
            continue
        # The first column has no title.
        place = cells(rows[0]).index(BASE) + 1
        ratios[heading] = {
            row[0]: numbers(row[place]) for row in map(cells, rows[1:]) if len(row) > place
        }
    return header, ratios


def cells(row):
    return re.split(r"\s{2,}", row.strip())


def numbers(cell):
    """Of `5.55 (5.06..5.67)`; the base itself is `1`."""
    found = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)]
    median, least, greatest = found if len(found) == 3 else found * 3
    return median, least, greatest


def draw(header, ratios):
    tables, missing = [], []
    for title, begin, names in TABLES:
        rows = next(rows for heading, rows in ratios.items() if heading.startswith(begin))
        tables.append((title, [(name, rows[name]) for name in names if name in rows]))
        missing += [name for name in names if name not in rows]
    most = max(greatest for _, rows in tables for _, (_, _, greatest) in rows)
    step = 1 if most < 10 else 2

    def x(ratio):
        return LEFT + ratio / most * (WIDTH - LEFT - RIGHT)

    bars, told, y = [], [], TOP
    for title, rows in tables:
        bars.append(text(16, y + TITLE - 13, title))
        y += TITLE
        for name, (median, least, greatest) in rows:
            colour = "bar" if name.startswith(OURS) else "other-bar"
            bars.append(text(LEFT - 8, y + 13, name, anchor="end"))
            bars.append(bar(LEFT, y + 2, x(median) - LEFT, ROW - 7, colour))
            shown = f"{median:.2f}"
            if least < greatest:
                bars.append(line([(x(least), y + 9), (x(greatest), y + 9)], "spread", 1.5))
                shown += f" ({least:.2f} to {greatest:.2f})"
            bars.append(text(x(greatest) + 6, y + 13, shown))
            told.append(f"{name} {shown}")
            y += ROW
    bottom = y + 6
    grid = []
    for ratio in range(0, int(most) + 1, step):
        grid.append(line([(x(ratio), TOP), (x(ratio), bottom)], "grid" if ratio else "axis", 1))
        grid.append(text(x(ratio), bottom + 15, str(ratio), anchor="middle"))
    notes = [
        f"{header['Server']}; {header['Client']}; pipelined.",
        f"{header['CPU']}; load {header['Load']}.",
        f"Rounds: {header['Rounds']}. Bars are medians; lines go from the least round to the greatest.",
        "Ratios, measured on one machine, and of use only as such.",
    ]
    if CELL in missing:
        notes.append("redis-cell was not there and is not shown.")
    y = bottom + 24
    for note in notes:
        y += FOOT
        bars.append(text(16, y, note))
    title = "Requests per second, as multiples of those of a token bucket in Lua"
    write(
        "bench.svg",
        WIDTH,
        y + FOOT,
        title,
        f"{'; '.join(told)}. {' '.join(notes)}",
        [*grid, text(16, 24, title), *bars],
    )


if __name__ == "__main__":
    with open(*arguments(__doc__, 1), encoding="utf-8") as file:
        draw(*read(file.read()))
