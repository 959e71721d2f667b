#!/usr/bin/env python3
"""Load for POST /rating by h2load, and the sum at its end: what was granted is what the limit
allows, capacity + refill x time, and not one more.

usage: rating.py [--url http://127.0.0.1:8080] [--capacity 100] [--refill 50] [--seconds 10]
                 [--clients 20]

Capacity and refill, each second, are those of claw-edge, and its bucket has to be full. Ends
with 1 when the sum is wrong, or after any answer that is neither 200 nor 429.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--capacity", type=int, default=100)
    parser.add_argument("--refill", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()

    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write('{"user_id": "ann", "item_id": "tea", "rating": 4}')
        body.flush()
        command = ["h2load", "--h1", "-t", "1", "-c", str(options.clients), "-D", str(options.seconds)]
        command += ["-d", body.name, "-H", "content-type: application/json", f"{options.url}/rating"]
        begin = time.monotonic()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        elapsed = time.monotonic() - begin

    seen = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    if not seen:
        sys.exit(f"h2load says nothing of status codes:\n{output}")
    granted, redirected, refused, failed = map(int, seen.groups())
    # What the bucket had, and all that it gained from before the first request to after the last.
    most = options.capacity + options.refill * elapsed
    # h2load does not count what is under way when its time is over.
    least = 0.9 * (options.capacity + options.refill * options.seconds) - options.clients
    adds_up = least <= granted <= most and redirected == failed == 0
    print(
        f"granted {granted}, refused {refused}, others {redirected + failed}; "
        f"{options.capacity} + {options.refill} x {elapsed:.1f} s = {most:.0f}: "
        + ("adds up" if adds_up else "DOES NOT ADD UP")
    )
    return 0 if adds_up else 1


if __name__ == "__main__":
    sys.exit(main())
