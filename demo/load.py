"""Load without k6: ramps to a number of users, accepts the answers 200 and 429
only, and prints how many there were of each.

usage: python3 load.py [--users 50] [--seconds 10] [--every S] [--key demo] [URL ..]

All users share one API key, so they share one limit; they are spread over the
URLs. Half of the time is the ramp. With --every it also prints, every S seconds
and at the end, what each URL has granted and refused so far, and all of them
together. Ends with 1 after any other answer.
"""

import argparse
import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse

TIMEOUT = 30  # seconds until a request counts as failed


def user(url: str, key: str, start: float, end: float, seen: collections.Counter) -> None:
    """One user: asks again as soon as there is an answer."""
    time.sleep(max(0.0, start - time.monotonic()))
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=TIMEOUT)
    while time.monotonic() < end:
        try:
            connection.request("GET", place.path or "/", headers={"X-Api-Key": key})
            answer = connection.getresponse()
            answer.read()
            seen[str(answer.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            seen[f"{type(error).__name__}: {error}"] += 1
            connection.close()
            time.sleep(0.1)  # nobody gains from a storm
    connection.close()


def names(urls: list[str]) -> list[str]:
    """What to call them: by their hosts, with the ports where hosts are the same."""
    places = [urllib.parse.urlsplit(url) for url in urls]
    hosts = [place.hostname for place in places]
    return [p.hostname if hosts.count(p.hostname) == 1 else p.netloc for p in places]


def say(begin: float, urls: list[str], counters: list[collections.Counter]) -> None:
    """What each URL has answered, and all of them, since the beginning."""
    parts = [(name, counters[n :: len(urls)]) for n, name in enumerate(names(urls))]
    parts.append(("together", counters))
    text = "; ".join(
        f"{name} {sum(c['200'] for c in its)} granted, {sum(c['429'] for c in its)} refused"
        for name, its in parts
    )
    print(f"{time.monotonic() - begin:.1f} s: {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--every", type=float, default=0)
    parser.add_argument("--key", default="demo")
    parser.add_argument("urls", nargs="*", default=["http://127.0.0.1:8080/"])
    options = parser.parse_args()

    begin = time.monotonic()
    # A counter for each user: threads must not share one.
    counters = [collections.Counter() for _ in range(options.users)]
    threads = []
    for number, seen in enumerate(counters):
        url = options.urls[number % len(options.urls)]
        start = begin + options.seconds / 2 * number / options.users
        arguments = (url, options.key, start, begin + options.seconds, seen)
        threads.append(threading.Thread(target=user, args=arguments))
    for thread in threads:
        thread.start()
    while options.every and time.monotonic() + options.every < begin + options.seconds:
        time.sleep(options.every)
        say(begin, options.urls, counters)
    for thread in threads:
        thread.join()
    if options.every:
        say(begin, options.urls, counters)

    seen = sum(counters, collections.Counter())
    print(json.dumps(dict(sorted(seen.items()))))
    return 0 if seen and set(seen) <= {"200", "429"} else 1


if __name__ == "__main__":
    sys.exit(main())
