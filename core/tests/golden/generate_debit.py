"""Writes debit.txt: histories of debit counters, with the state after every step.

    python3 generate_debit.py > debit.txt

`Replica` below is the model: debit counters without the partition guard, in
Python's unbounded integers. Amounts are millionths of a token, times microseconds
on the replica's own clock, the refill is `refill` millionths per `interval`
microseconds. A level is in millionths * interval * 1000.

A history is a `history` line, the `policy` lines of its policies, oldest first,
and then its steps, one line each:

    <clock> <replica> take <key> <tokens> <1 taken, 0 refused>
    <clock> <replica> look <key>
    <clock> <replica> debit <key> <millionths>
    <clock> <replica> refund <key> <millionths>
    <clock> <replica> overrun <key> <tokens used beyond what was taken> <tokens booked>
    <clock> <replica> forget <key>
    <clock> <replica> policy <which>
    <clock> <replica> send
    <clock> <replica> receive <which send> <1 the round is complete, 0 it is not>

After a step stand the keys of that replica that have changed:

    <key> <level> <tokens> <replica>,<epoch>,<spent>,<refunded> .. <peer>:<overflow> ..
    <key> gone
"""

import random

THOUSAND = 1000
TOKEN = 10**6
SECOND = 10**6
UNBOUNDED = 10**30


class Key:
    def __init__(self, now):
        self.entries = {}
        self.level = 0
        self.time = now
        self.wasted = 0  # refill that met a full bucket
        self.seen = {}  # `wasted` as of the previous complete round of each peer


class Replica:
    def __init__(self, name, peers, policy, debt):
        self.name, self.peers, self.policy, self.debt = name, peers, policy, debt
        self.keys, self.epoch = {}, 0
        self.rounds = dict.fromkeys(peers, 0)

    def advance(self, key, now):
        _, _, _, refill, _ = self.policy
        for peer, at in self.rounds.items():
            if at > key.time:
                gained = refill * THOUSAND * (min(at, now) - key.time)
                key.seen[peer] = key.wasted + max(0, gained - key.level)
        gained = refill * THOUSAND * max(0, now - key.time)
        key.wasted += max(0, gained - key.level)
        key.level = max(0, key.level - gained)
        key.time = max(key.time, now)

    def open(self, name, now):
        key = self.keys.setdefault(name, Key(now))
        self.advance(key, now)
        return key

    def count(self, key, spent, refunded):
        epoch, old_spent, old_refunded = key.entries.get(self.name) or (self.begin(), 0, 0)
        key.entries[self.name] = (epoch, old_spent + spent, old_refunded + refunded)

    def begin(self):
        self.epoch += 1
        return self.epoch

    def begin_anew(self, key):
        """Others tell what was counted here and is forgotten: it need not be all."""
        self.epoch = max(self.epoch, key.entries[self.name][0])
        key.entries[self.name] = (self.begin(), 0, 0)

    def take(self, name, amount, now):
        key = self.open(name, now)
        _, _, capacity, _, interval = self.policy
        if key.level + amount * interval * THOUSAND > capacity * interval * THOUSAND:
            return False
        self.count(key, amount, 0)
        key.level += amount * interval * THOUSAND
        return True

    def overrun(self, name, tokens, now):
        """What was used is booked whatever there is, until a full bucket is owed."""
        key = self.open(name, now)
        _, _, capacity, _, interval = self.policy
        most = max(0, 2 * capacity * interval * THOUSAND - key.level)
        booked = min(tokens, most // (TOKEN * interval * THOUSAND))
        if booked > 0:
            self.count(key, booked * TOKEN, 0)
            key.level += booked * TOKEN * interval * THOUSAND
        return booked

    def refund(self, name, amount, now):
        key = self.open(name, now)
        self.count(key, 0, amount)
        key.level = max(0, key.level - amount * self.policy[4] * THOUSAND)

    def tokens(self, key):
        _, _, capacity, _, interval = self.policy
        return capacity - -(-key.level // (interval * THOUSAND))

    def send(self, now):
        for key in self.keys.values():
            self.advance(key, now)
        states = {name: (dict(key.entries), key.level) for name, key in self.keys.items()}
        return self.name, self.policy, states

    def switch(self, policy, now):
        if policy <= self.policy:
            return
        for key in self.keys.values():
            self.advance(key, now)
            old, new = self.policy[4], policy[4]
            # The tokens are kept, and so is what is owed.
            held = self.policy[2] * old * THOUSAND - key.level
            key.level = max(0, policy[2] * new * THOUSAND - held * new // old)
            key.wasted = key.wasted * new // old
            key.seen = {peer: wasted * new // old for peer, wasted in key.seen.items()}
        self.policy = policy

    def receive(self, message, now, complete):
        sender, policy, states = message
        self.switch(policy, now)
        same = policy == self.policy
        unit = self.policy[4] * THOUSAND
        for name, (entries, level) in states.items():
            fresh = name not in self.keys
            key = self.open(name, now)
            owed = max(key.level, level) if same else key.level
            forgotten = self.name not in key.entries and self.name in entries
            if fresh:
                key.entries = dict(entries)
                if forgotten:
                    self.begin_anew(key)
                key.level = level if same else 0
                key.seen[sender] = key.wasted
                continue
            spent = refunded = 0
            for replica, entry in entries.items():
                if replica != self.name:
                    more = gain(key.entries.get(replica), entry)
                    spent, refunded = spent + more[0], refunded + more[1]
            unknown = sum(gain(entries.get(r), entry)[0] for r, entry in key.entries.items())
            for replica, entry in entries.items():
                known = key.entries.get(replica)
                key.entries[replica] = join(known, entry) if known else entry
            self.epoch = max(self.epoch, entries.get(self.name, (0,))[0])
            if forgotten:
                self.begin_anew(key)
            spent *= unit
            absorbed = min(spent, max(0, key.wasted - key.seen.get(sender, key.wasted)))
            key.level += spent - absorbed
            key.wasted -= absorbed
            key.level = max(0, key.level - refunded * unit)
            if same and level + unknown * unit < key.level:
                key.wasted -= key.level - (level + unknown * unit)
                key.level = level + unknown * unit
            key.level = min(key.level, max(owed, (self.policy[2] + self.debt) * unit))
            key.seen[sender] = key.wasted
        if complete:
            self.rounds[sender] = now


def join(a, b):
    if a[0] != b[0]:
        return max(a, b)
    return a[0], max(a[1], b[1]), max(a[2], b[2])


def gain(old, new):
    if old is None or new[0] > old[0]:
        return new[1], new[2]
    if new[0] < old[0]:
        return 0, 0
    return max(0, new[1] - old[1]), max(0, new[2] - old[2])


class Debtless:
    """No bound on how far below empty a bucket may be."""

    def __init__(self):
        self.debt, self.timeout = UNBOUNDED, 2**64 - 1


class Timeout:
    """A full bucket, and what all others can admit and book unseen within the timeout."""

    def __init__(self, replicas, policy, timeout):
        capacity, refill, interval = policy
        assert refill * timeout % interval == 0
        self.debt = capacity + (replicas - 1) * (2 * capacity + refill * timeout // interval)
        self.timeout = timeout


PLAIN = dict(take=10, send=4, receive=10)


class History:
    def __init__(self, title, replicas, policies, bound=None, keys=1, **mix):
        self.random = random.Random(title)
        self.bound = bound or Debtless()
        self.policies = [(number, "", *policy) for number, policy in enumerate(policies)]
        self.names = "abcde"[:replicas]
        self.replicas = {}
        for name in self.names:
            peers = [peer for peer in self.names if peer != name]
            self.replicas[name] = Replica(name, peers, self.policies[0], self.bound.debt)
        self.clocks = dict.fromkeys(self.names, 0)
        self.keys = "xyz"[:keys]
        self.mix = mix
        self.sent, self.undelivered, self.shown = [], [], {}
        print(f"history {replicas} {self.bound.timeout} {title}")
        for _, _, capacity, refill, interval in self.policies:
            print(f"policy {capacity // TOKEN} {refill} {interval // THOUSAND}")

    def step(self, name, *words, result=()):
        print(self.clocks[name], name, *words, *result)
        replica = self.replicas[name]
        for key in self.keys:
            line = show(replica, key)
            if self.shown.get((name, key), f"{key} gone") != line:
                print(line)
            self.shown[name, key] = line

    def take(self, name):
        key, tokens = self.random.choice(self.keys), self.random.choice((1, 1, 2, 5, 13))
        taken = self.replicas[name].take(key, tokens * TOKEN, self.clocks[name])
        self.step(name, "take", key, tokens, result=[int(taken)])

    def debit(self, name):
        key, amount = self.random.choice(self.keys), self.random.randint(1, 9 * TOKEN)
        if self.replicas[name].take(key, amount, self.clocks[name]):
            self.step(name, "debit", key, amount)
        else:
            self.step(name, "look", key)

    def drain(self, name):
        """All there is, in one go."""
        key, now = self.random.choice(self.keys), self.clocks[name]
        replica = self.replicas[name]
        tokens = replica.tokens(replica.open(key, now)) // TOKEN
        self.step(name, "look", key)
        if tokens > 0:
            taken = replica.take(key, tokens * TOKEN, now)
            self.step(name, "take", key, tokens, result=[int(taken)])

    def overrun(self, name):
        key, tokens = self.random.choice(self.keys), self.random.choice((1, 2, 5, 13, 50))
        booked = self.replicas[name].overrun(key, tokens, self.clocks[name])
        self.step(name, "overrun", key, tokens, booked)

    def refund(self, name):
        key, amount = self.random.choice(self.keys), self.random.randint(1, 3 * TOKEN)
        self.replicas[name].refund(key, amount, self.clocks[name])
        self.step(name, "refund", key, amount)

    def forget(self, name, only_full=True):
        keys = self.replicas[name].keys
        full = [key for key, state in keys.items() if state.level == 0 or not only_full]
        if full:
            key = self.random.choice(full)
            del keys[key]
            self.step(name, "forget", key)

    def restart(self, name):
        self.forget(name, only_full=False)

    def policy(self, name):
        replica = self.replicas[name]
        number = replica.policy[0] + 1
        if number < len(self.policies):
            replica.switch(self.policies[number], self.clocks[name])
            self.step(name, "policy", number)

    def send(self, name):
        message = self.replicas[name].send(self.clocks[name])
        self.step(name, "send")
        self.undelivered += [(len(self.sent), peer) for peer in self.names if peer != name]
        self.sent.append(message)

    def deliver(self, number, name, complete):
        self.replicas[name].receive(self.sent[number], self.clocks[name], complete)
        self.step(name, "receive", number, int(complete))

    def receive(self, _):
        """In order, and each once."""
        if self.undelivered:
            self.deliver(*self.undelivered.pop(0), True)

    def receive_some(self, _):
        """Lost, doubled, late, in any order; and the end of the round with it."""
        if self.undelivered:
            place = self.random.randrange(len(self.undelivered))
            number, name = self.undelivered[place]
            if self.random.random() < 0.7:
                del self.undelivered[place]
            if self.random.random() < 0.7:
                self.deliver(number, name, self.random.random() < 0.5)

    def back(self, name):
        self.clocks[name] = max(0, self.clocks[name] - self.random.randint(1, 3 * SECOND))

    def run(self, steps, pace):
        actions, weights = list(self.mix), list(self.mix.values())
        for _ in range(steps):
            # Mostly short steps, some long ones; each clock at its own speed.
            elapsed = int(self.random.expovariate(1) * self.random.choice(pace))
            for number, name in enumerate(self.names):
                self.clocks[name] += elapsed + number * elapsed // 100
            action = self.random.choices(actions, weights)[0]
            getattr(self, action)(self.random.choice(self.names))


def show(replica, name):
    key = replica.keys.get(name)
    if key is None:
        return f"{name} gone"
    words = [name, str(key.level), str(replica.tokens(key))]
    for owner, entry in sorted(key.entries.items()):
        words.append(",".join(map(str, (owner, *entry))))
    for peer, wasted in sorted(key.seen.items()):
        words.append(f"{peer}:{key.wasted - wasted}")
    return " ".join(words)


def main():
    per_second = (20 * TOKEN, 4 * TOKEN, SECOND)
    per_minute = (100 * TOKEN, 100 * TOKEN, 60 * SECOND)
    odd = (7 * TOKEN, 1_234_567, 987_000)
    pace = (20_000, 200_000, 2 * SECOND)
    lossy = dict(take=10, debit=2, drain=1, send=4, receive_some=10)

    History("two replicas, every message", 2, [per_second], **PLAIN).run(70, pace)
    History("five replicas, every message", 5, [per_minute], **PLAIN).run(90, pace)
    History("late, lost, doubled, out of order", 3, [per_second], **lossy).run(120, pace)
    History("the same with an odd policy", 4, [odd], **lossy).run(110, pace)
    History("nothing ever refills", 3, [(50 * TOKEN, 0, SECOND)], **lossy).run(60, pace)
    History("three keys", 3, [per_second], keys=3, **lossy).run(90, pace)
    History("give-backs", 3, [per_second], refund=5, **lossy).run(100, pace)
    History("full buckets are forgotten", 3, [per_second], forget=6, **PLAIN).run(110, pace)
    History("restarts that lose the bucket", 3, [per_second], restart=2, **PLAIN).run(110, pace)
    History("clocks that are set back", 3, [per_second], back=4, **lossy).run(90, pace)

    changes = [
        per_second,
        (20 * TOKEN, 40 * TOKEN, SECOND),
        (5 * TOKEN, 40 * TOKEN, SECOND),
        (5 * TOKEN, 80 * TOKEN, 2 * SECOND),
        (60 * TOKEN, 90 * TOKEN, 60 * SECOND),
        (60 * TOKEN, 1 * TOKEN, SECOND * 3 // 2),
        (10**12 * TOKEN, 10**9 * TOKEN, SECOND * 3 // 2),
    ]
    for replicas in (2, 3):
        title = f"policy changes, {replicas} replicas"
        History(title, replicas, changes, policy=2, refund=1, **lossy).run(120, pace)
    title = "intervals that do not divide each other"
    intervals = [(20 * TOKEN, 4 * TOKEN, ms * THOUSAND) for ms in (7_000, 3_000, 1_009, 11)]
    History(title, 2, intervals, policy=2, **lossy).run(120, pace)

    joins = History("two replicas that are joined by a third", 3, [per_second, odd], **PLAIN)
    joins.names = "ab"
    joins.run(40, pace)
    joins.names = "abc"
    joins.policy("a")
    joins.run(60, pace)

    for timeout in (0, 2 * SECOND):
        bound = Timeout(3, per_second, timeout)
        title = f"debt is bounded, timeout {timeout}"
        mix = dict(drain=10, take=3, send=2, receive_some=4)
        History(title, 3, [per_second], bound=bound, **mix).run(80, (3 * SECOND,))
        title = f"overruns, timeout {timeout}"
        mix = dict(overrun=10, take=3, send=2, receive_some=4)
        History(title, 3, [per_second], bound=bound, **mix).run(120, (SECOND,))

    settled = dict(overrun=4, refund=2, **lossy)
    History("overruns and refunds", 3, [per_second], **settled).run(120, pace)
    History("overruns, policy changes", 3, changes, policy=3, **settled).run(120, pace)


if __name__ == "__main__":
    main()
