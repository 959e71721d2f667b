"""What differs from library to library: routing in a cluster, a policy, a state.

usage: python tour.py
The server is REDIS_URL, or redis://127.0.0.1:6379; with CLUSTER set it is a node of a cluster.
"""

import os

import redis


def main() -> None:
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    kind = redis.RedisCluster if "CLUSTER" in os.environ else redis.Redis
    client = kind.from_url(url)

    # The first argument is the key, and redis-py knows it: it has asked the server.
    taken = 0
    for n in range(20):
        taken += client.execute_command(
            "CL.TAKE", f"tour:{n}", 1, "CAPACITY", 5, "REFILL", 0
        )[0]
    print(f"{taken} taken")

    # A dict, with RESP 3, which redis-py speaks by default. Texts are bytes.
    policy = client.execute_command("CL.POLICY", "tour:1", "CAPACITY", 5, "REFILL", 2.5)
    print(f"{policy[b'capacity']} at most, {policy[b'refill'].decode()} more in a second")

    # MessagePack: bytes, also where texts are decoded.
    state = client.execute_command("CL.STATE", "tour:1", NEVER_DECODE=True)
    changed, _capacity, _remaining = client.execute_command("CL.MERGE", "tour:1", "STATE", state)
    print(f"merged with itself, {changed} changed")


if __name__ == "__main__":
    main()
