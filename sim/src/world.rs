//! Regions, the links between them, their clocks, and time.
//!
//! Every interval a server sends each peer the states of the buckets it has changed
//! since, and ends the round. What does not arrive is sent again in the next round;
//! a link that was cut, or whose far end began a new life, starts with everything
//! there is. A round that arrived whole is complete.

use crate::random::Random;
use crate::server::{Backup, Config, Method, Name, Noted, Sent, Server, Settled};
use claw_core::expiry::MOST_LINGER_US;
use claw_core::membership::{self, Instants, PartitionPolicy, Progress, Statement, WHOLE};
use claw_core::merge::Join;
use claw_core::policy::Policy;
use claw_core::replica::ReplicaId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// When every run begins, in unix microseconds.
const START: u64 = 1_773_914_400 * SECOND;

/// From one walk over all keys to the next, as the module has it.
const WALK_US: u64 = 60 * SECOND;

/// How often it is looked how many keys there are.
const LOOK_US: u64 = 2 * SECOND;

/// How often a server looks who is silent.
const TICK_US: u64 = SECOND / 10;

/// What the network does to messages.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// From the end of one round to the beginning of the next.
    pub interval_us: u64,
    /// One way, at least.
    pub delay_us: u64,
    /// One way, at most so much more.
    pub jitter_us: u64,
    /// How many of a thousand states are lost, and how many rounds.
    pub loss: u64,
    /// How many of a thousand states come once more, later and out of order.
    pub again: u64,
    /// How long it takes to send all states again, to who may have lost some.
    pub resend_us: u64,
    /// How many bytes a second a line carries; 0 for any number. A round begins when the one
    /// before it is on its way.
    pub bytes_per_second: u64,
}

/// A server's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// How far the wall clock is ahead.
    pub ahead_us: u64,
    /// How many microseconds a second both are fast.
    pub fast_ppm: u64,
}

/// Something that happens at a server.
#[derive(Debug, Clone)]
pub enum Happening {
    /// Somebody wants tokens.
    Take(Name, u64),
    /// Somebody wants tokens for some work, and says what it used when it is done, so many
    /// microseconds later. If they are refused, it is not done.
    Work {
        /// Of which key.
        name: Name,
        /// How many tokens.
        reserved: u64,
        /// How many it will have used.
        used: u64,
        /// How long it takes.
        us: u64,
    },
    /// Somebody took so many tokens and used so many.
    Settle(Name, u64, u64),
    /// Somebody gives tokens back.
    Give(Name, u64),
    /// Somebody pins a policy.
    Pin(Name, Policy),
    /// A full bucket is evicted.
    Forget(Name),
    /// The server stops and starts again with what it had.
    Restart,
    /// The server stops and starts again with nothing.
    RestartEmpty,
    /// A replica is made of what the server has now.
    Replicate,
    /// The server stops, and the replica is promoted.
    Promote,
    /// The wall clock is set ahead, or back.
    Step(i64),
    /// The links from this server to these become so.
    Links(Vec<usize>, bool),
    /// The server refuses all states, for want of memory, or does not any more.
    Refuses(bool),
    /// The machine is suspended until then: what comes in waits for it.
    Suspend(u64),
    /// A key becomes what it was in the [replica](Self::Replicate), as by RESTORE.
    RestoreKey(Name),
    /// The second key becomes a copy of the first.
    CopyKey(Name, Name),
    /// The server has to admit the whole limit now.
    IsWhole,
    /// The server has to grant a token of a bucket that nobody has used.
    Grants(Name),
    /// The server has to have no keys, and to have sent no states since that moment.
    IsIdle(u64),
}

#[derive(Debug)]
enum Event {
    Happening(usize, Happening),
    Tick(usize),
    Send(usize),
    /// The walk over all keys that nobody asked for.
    Walk(usize),
    /// Somebody looks how many keys there are.
    Look(usize),
    Round(Round),
    /// The answer to the heartbeat of a round from one to another.
    Answer {
        from: usize,
        to: usize,
        /// The life of the sender, and that of who answers.
        lives: (u64, u64),
        number: u64,
    },
    /// A copy of a state that was sent before.
    Stray {
        from: usize,
        to: usize,
        sent: Box<Sent>,
    },
}

#[derive(Debug)]
struct Round {
    from: usize,
    to: usize,
    /// The life of the receiver that the connection is with.
    life: u64,
    /// The life of the sender.
    run: u64,
    states: Sent,
    /// What they were made of, to be sent again when they do not arrive.
    notes: Vec<(Name, Noted)>,
    at: u64,
    statement: Statement,
    complete: bool,
    /// Whom the sender hears.
    hears: Vec<ReplicaId>,
}

#[derive(Debug, Clone, Default)]
struct Link {
    down: bool,
    /// Changed since they were last sent.
    changed: BTreeMap<Name, Noted>,
    /// Everything has to be sent.
    all: bool,
    /// What of it is still to be sent, and when.
    resend: Vec<(u64, Name)>,
    /// When the far end refused states last that it has not taken since.
    refused: Option<u64>,
    /// When the latest round that arrived complete was sent.
    known: u64,
    /// When the latest round arrives: rounds do not overtake each other.
    busy: u64,
    /// When the line can take the next one.
    free: u64,
}

impl Link {
    /// What was noted has not arrived.
    fn put_back(&mut self, notes: Vec<(Name, Noted)>) {
        self.all = true;
        self.keep(notes);
    }

    /// They are to be sent again, unless they have changed since.
    fn keep(&mut self, notes: Vec<(Name, Noted)>) {
        for (name, noted) in notes {
            self.changed.entry(name).or_insert(noted);
        }
    }
}

/// Of a bucket, when how much was given out (or back), in millionths.
pub type Admitted = BTreeMap<Name, Vec<(u64, i64)>>;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// Of all regions.
    pub config: Config,
    /// Of all links.
    pub network: Network,
    servers: Vec<Server>,
    clocks: Vec<(Clock, i64)>,
    lives: Vec<u64>,
    backups: Vec<Option<Backup>>,
    /// Which servers refuse states.
    refusing: Vec<bool>,
    /// Until when each is suspended.
    suspended: Vec<u64>,
    links: Vec<Vec<Link>>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    random: Random,
    now: u64,
    /// What was given out.
    pub admitted: Admitted,
    /// How many calls were refused.
    pub refused: u64,
    /// How many tokens were booked beyond what was admitted.
    pub overrun: u64,
    /// How long something admitted here has been unknown there, at most.
    pub lag: u64,
    /// What was not as it had to be when somebody looked.
    pub wrong: Vec<String>,
    /// With so many keys a server's memory is full: it takes neither calls nor states.
    pub most_keys: usize,
    /// A bucket that is written to no more has to be gone so long after it is full, in microseconds.
    pub gone_after: Option<u64>,
    /// What one server alone would keep of the keys of each server.
    alone: Option<Vec<Alone>>,
    /// When each server sent a state last.
    sent: Vec<u64>,
    /// The most keys that were kept, against how many might have been.
    pub kept: (u64, u64),
}

/// A server that shares nothing and is asked what another one is.
#[derive(Debug)]
struct Alone {
    server: Server,
    /// When each key was used last.
    used: BTreeMap<Name, u64>,
    /// How many keys it had whenever somebody looked, from [`MOST_LINGER_US`] ago on.
    kept: VecDeque<usize>,
}

impl World {
    /// All regions start at the same moment, with nothing.
    #[must_use]
    pub fn new(config: Config, network: Network, clocks: &[Clock], seed: u64) -> Self {
        let count = config.regions;
        let mut world = Self {
            config,
            network,
            servers: Vec::new(),
            clocks: clocks.iter().map(|clock| (*clock, 0)).collect(),
            lives: vec![0; count],
            backups: vec![None; count],
            refusing: vec![false; count],
            suspended: vec![0; count],
            links: vec![vec![Link { all: true, ..Link::default() }; count]; count],
            queue: BinaryHeap::new(),
            events: Vec::new(),
            random: Random::new(seed),
            now: 0,
            admitted: Admitted::new(),
            refused: 0,
            overrun: 0,
            lag: 0,
            wrong: Vec::new(),
            most_keys: usize::MAX,
            gone_after: None,
            alone: None,
            sent: vec![0; count],
            kept: (0, 1),
        };
        world.clocks.resize(count, (Clock::default(), 0));
        for place in 0..count {
            let now = world.instants(place);
            let life = world.random.bits();
            world.servers.push(Server::new(config, place, life, now));
            let first = world.random.of(0, TICK_US);
            world.push(first, Event::Tick(place));
            let first = world.random.of(0, network.interval_us);
            world.push(first, Event::Send(place));
            world.push(WALK_US, Event::Walk(place));
            world.push(LOOK_US, Event::Look(place));
        }
        world
    }

    /// From now on no server may keep more keys than one kept, [`MOST_LINGER_US`] before, that
    /// shares nothing and refills under `policy`, besides those that were used since.
    pub fn count_keys(&mut self, policy: Policy) {
        let config =
            Config { regions: 1, policy, method: Method::States(Join::Max), ..self.config };
        let alone = |place| Alone {
            server: Server::new(config, place, 0, self.instants(place)),
            used: BTreeMap::new(),
            kept: VecDeque::new(),
        };
        self.alone = Some((0..self.count()).map(alone).collect());
    }

    /// Lets something happen at a server at `us` microseconds from the start.
    pub fn plan(&mut self, us: u64, place: usize, happening: Happening) {
        self.push(us, Event::Happening(place, happening));
    }

    /// Cuts the links from one side to the other, both ways or only one, between two
    /// moments.
    pub fn plan_cut(&mut self, (from, until): (u64, u64), sides: &[bool], both_ways: bool) {
        for here in 0..sides.len() {
            let others = (0..sides.len()).filter(|there| sides[here] != sides[*there]);
            if both_ways || sides[here] {
                let others: Vec<usize> = others.collect();
                self.plan(from, here, Happening::Links(others.clone(), false));
                self.plan(until, here, Happening::Links(others, true));
            }
        }
    }

    /// Two servers do not hear each other for a while.
    pub fn plan_gap(&mut self, (from, until): (u64, u64), one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            self.plan(from, here, Happening::Links(vec![there], false));
            self.plan(until, here, Happening::Links(vec![there], true));
        }
    }

    /// How many servers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// One of them.
    pub fn server(&mut self, place: usize) -> &mut Server {
        &mut self.servers[place]
    }

    /// The moment on the wall clock of a server.
    #[must_use]
    pub fn wall(&self, place: usize) -> u64 {
        self.instants(place).wall
    }

    fn instants(&self, place: usize) -> Instants {
        let (clock, stepped) = self.clocks[place];
        let steady = self.now + self.now * clock.fast_ppm / SECOND;
        let wall = (START + clock.ahead_us + steady).saturating_add_signed(stepped);
        Instants { wall, steady }
    }

    fn push(&mut self, us: u64, event: Event) {
        self.queue.push(Reverse((
            us,
            u64::try_from(self.events.len()).unwrap_or(0),
            self.events.len(),
        )));
        self.events.push(Some(event));
    }

    /// Runs until `us` microseconds from the start.
    pub fn run(&mut self, us: u64) {
        while let Some(Reverse((at, _, event))) = self.queue.peek().copied() {
            if at > us {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events[event].take() {
                self.handle(event);
            }
        }
        self.now = us;
    }

    /// Which server does what an event is about; the network does not need one.
    fn place_of(event: &Event) -> Option<usize> {
        match event {
            Event::Happening(_, Happening::Links(..)) => None,
            Event::Happening(place, _)
            | Event::Tick(place)
            | Event::Send(place)
            | Event::Walk(place)
            | Event::Look(place) => Some(*place),
            Event::Answer { from, .. } => Some(*from),
            Event::Round(round) => Some(round.to),
            Event::Stray { to, .. } => Some(*to),
        }
    }

    fn handle(&mut self, event: Event) {
        let wakes = Self::place_of(&event).map_or(0, |place| self.suspended[place]);
        if wakes > self.now {
            self.push(wakes, event);
            return;
        }
        match event {
            Event::Happening(place, happening) => self.happen(place, happening),
            Event::Tick(place) => {
                let now = self.instants(place);
                for to in 0..self.count() {
                    let (id, refused) =
                        (self.servers[to].id(), self.links[place][to].refused.is_some());
                    self.servers[place].refused_by(id, refused);
                }
                if self.servers[place].tick(now) {
                    // What came in before is passed on too.
                    for link in &mut self.links[place] {
                        link.all = true;
                    }
                }
                self.check_shares();
                self.push(self.now + TICK_US, Event::Tick(place));
            }
            Event::Walk(place) => {
                self.visit(place);
                self.push(self.now + WALK_US, Event::Walk(place));
            }
            Event::Look(place) => {
                self.check_keys(place);
                self.push(self.now + LOOK_US, Event::Look(place));
            }
            Event::Send(place) => {
                for to in (0..self.count()).filter(|to| *to != place) {
                    self.send(place, to);
                }
                self.push(self.now + self.network.interval_us, Event::Send(place));
            }
            Event::Round(round) => self.arrive(round),
            Event::Answer { from, to, lives, number } => {
                if !self.links[from][to].down && lives == (self.lives[from], self.lives[to]) {
                    let (id, run) = (self.servers[to].id(), lives.1.to_be_bytes());
                    self.servers[from].answered(id, &run, number);
                }
            }
            Event::Stray { from, to, sent } => {
                if !self.links[from][to].down && !self.refuses(to) {
                    self.receive(from, to, &sent);
                }
            }
        }
    }

    /// Whether a server takes no states.
    fn refuses(&mut self, place: usize) -> bool {
        self.refusing[place] || self.is_out_of_memory(place)
    }

    fn is_out_of_memory(&mut self, place: usize) -> bool {
        let wall = self.wall(place);
        self.most_keys != usize::MAX && self.servers[place].kept(wall) >= self.most_keys
    }

    /// The sides of a cut come to one whole at most, when all know who is on which.
    fn check_shares(&mut self) {
        let shares: Vec<u16> = self.servers.iter().map(Server::share).collect();
        if self.config.guard == PartitionPolicy::Off || shares.contains(&WHOLE) {
            return;
        }
        let near = |here: usize| -> Vec<bool> {
            let ids = self.servers.iter().map(Server::id);
            ids.map(|id| !self.servers[here].misses(id)).collect()
        };
        let sides: Vec<Vec<bool>> = (0..self.count()).map(near).collect();
        let mut sum = 0;
        for (here, side) in sides.iter().enumerate() {
            let members = || (0..side.len()).filter(|there| side[*there]);
            if members().any(|there| sides[there] != *side) {
                return;
            }
            if members().next() == Some(here) {
                sum += members().map(|there| u64::from(shares[there])).max().unwrap_or(0);
            }
        }
        if sum > u64::from(WHOLE) {
            self.wrong.push(format!("shares of {shares:?} for {sides:?} at {}", self.now));
        }
    }

    fn check_keys(&mut self, place: usize) {
        let wall = self.wall(place);
        let server = &mut self.servers[place];
        let (id, kept) = (server.id(), server.kept(wall));
        if let Some(us) = self.gone_after {
            let overdue = server.overdue(us, wall);
            if !overdue.is_empty() {
                self.wrong.push(format!("{id} keeps {overdue:?} at {}", self.now));
            }
        }
        if let Some(alone) = self.alone.as_mut().map(|alone| &mut alone[place]) {
            let then = self.now.saturating_sub(MOST_LINGER_US + LOOK_US);
            alone.used.retain(|_, used| *used > then);
            alone.kept.push_back(alone.server.kept(wall));
            let (before, looks) = (alone.kept[0], MOST_LINGER_US / LOOK_US);
            if u64::try_from(alone.kept.len()).unwrap_or(u64::MAX) > looks {
                alone.kept.pop_front();
            }
            let allowed = before + alone.used.len();
            if kept > allowed {
                self.wrong.push(format!("{id} keeps {kept} of {allowed} keys at {}", self.now));
            }
            let [kept, allowed] = [kept, allowed].map(|n| u64::try_from(n).unwrap_or(u64::MAX));
            if kept * self.kept.1 > self.kept.0 * allowed {
                self.kept = (kept, allowed);
            }
        }
    }

    fn happen(&mut self, place: usize, happening: Happening) {
        let wall = self.wall(place);
        let calls = matches!(
            happening,
            Happening::Take(..)
                | Happening::Work { .. }
                | Happening::Settle(..)
                | Happening::Give(..)
                | Happening::Pin(..)
                | Happening::Grants(_)
        );
        if calls && self.is_out_of_memory(place) {
            self.refused += 1;
            if let Happening::Grants(_) = happening {
                let id = self.servers[place].id();
                self.wrong.push(format!("{id} has no memory at {}", self.now));
            }
            return;
        }
        let server = &mut self.servers[place];
        let mut changed = None;
        match happening {
            Happening::Take(name, tokens) => {
                if let Some(noted) = server.take(name, tokens, wall) {
                    let micros = i64::try_from(tokens * SECOND).unwrap_or(i64::MAX);
                    self.admitted.entry(name).or_default().push((self.now, micros));
                    changed = Some((name, noted));
                    let id = server.id();
                    for (there, alone) in self.alone.iter_mut().flatten().enumerate() {
                        if there == place || !self.servers[there].misses(id) {
                            let _ = alone.server.take(name, tokens, wall);
                            alone.used.insert(name, self.now);
                        }
                    }
                } else {
                    self.refused += 1;
                }
            }
            Happening::Work { name, reserved, used, us } => {
                if let Some(noted) = server.take(name, reserved, wall) {
                    let micros = i64::try_from(reserved * SECOND).unwrap_or(i64::MAX);
                    self.admitted.entry(name).or_default().push((self.now, micros));
                    changed = Some((name, noted));
                    self.plan(self.now + us, place, Happening::Settle(name, reserved, used));
                } else {
                    self.refused += 1;
                }
            }
            Happening::Settle(name, reserved, used) => {
                let (settled, noted) = server.settle(name, (reserved, used), wall);
                match settled {
                    Settled::Given(micros) => {
                        let given = i64::try_from(micros).expect("it is small");
                        self.admitted.entry(name).or_default().push((self.now, -given));
                    }
                    // What was used beyond what was admitted is no admission.
                    Settled::Booked(tokens) => self.overrun += tokens,
                }
                changed = noted.map(|noted| (name, noted));
            }
            Happening::Give(name, tokens) => {
                let (given, noted) = server.give(name, tokens, wall);
                let given = i64::try_from(given).expect("it is small");
                self.admitted.entry(name).or_default().push((self.now, -given));
                changed = noted.map(|noted| (name, noted));
            }
            Happening::Pin(name, policy) => {
                changed = server.pin(name, policy, wall).map(|noted| (name, noted));
            }
            Happening::Forget(name) => drop(server.forget_full(name, wall)),
            Happening::Restart => self.begin_life(place),
            Happening::RestartEmpty => {
                server.wipe();
                self.begin_life(place);
            }
            Happening::Replicate => self.backups[place] = Some(server.backup()),
            Happening::Promote => {
                if let Some(backup) = self.backups[place].take() {
                    server.restore(backup);
                }
                self.begin_life(place);
            }
            Happening::Step(by) => self.clocks[place].1 += by,
            Happening::Suspend(until) => self.suspended[place] = until,
            Happening::Refuses(refuses) => self.refusing[place] = refuses,
            Happening::IsWhole => {
                let share = server.share();
                if share < WHOLE {
                    let id = server.id();
                    self.wrong.push(format!("{id} admits {share} permille at {}", self.now));
                }
            }
            Happening::Grants(name) => {
                let id = server.id();
                changed = server.take(name, 1, wall).map(|noted| (name, noted));
                if changed.is_none() {
                    self.wrong.push(format!("{id} refuses what is full at {}", self.now));
                }
            }
            Happening::IsIdle(since) => {
                let (id, kept, sent) = (server.id(), server.kept(wall), self.sent[place]);
                if kept > 0 || sent > since {
                    let now = self.now;
                    self.wrong.push(format!("{id} keeps {kept}, sent at {sent}, at {now}"));
                }
            }
            Happening::RestoreKey(name) => {
                if let Some(backup) = &self.backups[place] {
                    server.restore_key(name, backup);
                }
            }
            Happening::CopyKey(from, to) => server.copy_key(from, to, wall),
            Happening::Links(others, up) => {
                for to in others {
                    let link = &mut self.links[place][to];
                    (link.down, link.all) = (!up, true);
                }
            }
        }
        if let Some((name, noted)) = changed {
            self.note(place, name, &noted);
        }
    }

    fn begin_life(&mut self, place: usize) {
        self.lives[place] += 1;
        let now = self.instants(place);
        let life = self.random.bits();
        self.servers[place].restart(life, now);
        for other in 0..self.count() {
            // What it had not sent ends with it.
            self.links[place][other].changed.clear();
            self.links[place][other].all = true;
            self.links[other][place].all = true;
        }
    }

    fn note(&mut self, place: usize, name: Name, noted: &Noted) {
        for link in &mut self.links[place] {
            link.changed.insert(name, noted.clone());
        }
    }

    fn send(&mut self, from: usize, to: usize) {
        let wall = self.wall(from);
        let link = &mut self.links[from][to];
        let server = &mut self.servers[from];
        if link.down || link.free > self.now || self.random.permille(self.network.loss / 4) {
            return;
        }
        let mut notes = std::mem::take(&mut link.changed);
        if std::mem::take(&mut link.all) {
            let resend_us = self.network.resend_us;
            let when = |name| (self.now + self.random.of(0, resend_us), name);
            link.resend = server.names().into_iter().map(when).collect();
            // When it ends does not depend on what comes first.
            link.resend.extend(server.names().first().map(|name| (self.now + resend_us, *name)));
        }
        for (_, name) in link.resend.extract_if(.., |(at, _)| *at <= self.now) {
            notes.extend(server.visit(name, wall).map(|noted| (name, noted)));
        }
        let delay = self.network.delay_us + self.random.of(0, self.network.jitter_us);
        let (mut arriving, mut again) = (Vec::new(), Vec::new());
        let mut complete = link.resend.is_empty();
        for (name, noted) in notes {
            if self.random.permille(self.network.again) {
                let sent = server.sent(&[(name, noted.clone())], wall);
                again.push((self.now + delay + self.random.of(0, 3 * SECOND), sent));
            }
            if self.random.permille(self.network.loss) {
                link.changed.insert(name, noted);
                complete = false;
            } else {
                arriving.push((name, noted));
            }
        }
        if !arriving.is_empty() {
            self.sent[from] = self.now;
        }
        let round = self.round(from, to, arriving, complete);
        let carrying = round.states.bytes() * SECOND;
        let carried = carrying.checked_div(self.network.bytes_per_second).unwrap_or(0);
        let link = &mut self.links[from][to];
        link.free = self.now + carried;
        link.busy = link.busy.max(link.free + delay);
        let arrives = link.busy;
        self.push(arrives, Event::Round(round));
        for (at, sent) in again {
            self.push(at, Event::Stray { from, to, sent: Box::new(sent) });
        }
    }

    /// A round that begins now.
    fn round(&self, from: usize, to: usize, notes: Vec<(Name, Noted)>, complete: bool) -> Round {
        let server = &self.servers[from];
        Round {
            from,
            to,
            life: self.lives[to],
            run: self.lives[from],
            states: server.sent(&notes, self.wall(from)),
            notes,
            at: self.now,
            statement: server.statement(),
            complete,
            hears: server.hears(),
        }
    }

    fn arrive(&mut self, round: Round) {
        let Round { from, to, life, run, states, notes, at, statement, complete, hears } = round;
        if self.links[from][to].down || life != self.lives[to] {
            if run == self.lives[from] {
                self.links[from][to].put_back(notes);
            }
            return;
        }
        let refuses = self.refuses(to);
        if refuses && !notes.is_empty() {
            // The heartbeat that follows them says so.
            let link = &mut self.links[from][to];
            if run == self.lives[from] {
                link.keep(notes);
            }
            link.refused = Some(self.now);
        } else {
            self.receive(from, to, &states);
        }
        let link = &mut self.links[from][to];
        // What was on its way when others were refused does not bring those.
        link.refused = link.refused.filter(|when| refuses || *when >= at);
        let progress = match (link.refused.is_some(), complete) {
            (true, _) => Progress::Refused,
            (false, true) => Progress::Complete,
            (false, false) => Progress::Partial,
        };
        let (now, id) = (self.instants(to), self.servers[from].id());
        // When it was sent, on a clock of the sender's.
        let round = membership::Round {
            id,
            run: &run.to_be_bytes(),
            sent: at,
            masters: 1,
            progress,
            rates: statement.rates,
            settled: statement.settled,
            hears: Some(&hears),
        };
        self.servers[to].heard(&round, now);
        let delay = self.network.delay_us + self.random.of(0, self.network.jitter_us);
        let (lives, number) = ((run, life), statement.number);
        self.push(self.now + delay, Event::Answer { from, to, lives, number });
        if progress == Progress::Complete {
            let link = &mut self.links[from][to];
            self.lag = self.lag.max(self.now - link.known);
            link.known = at;
        }
    }

    fn receive(&mut self, from: usize, to: usize, sent: &Sent) {
        let (wall, id) = (self.wall(to), self.servers[from].id());
        for (name, noted) in self.servers[to].receive(sent, id, wall) {
            self.note(to, name, &noted);
        }
    }

    /// The longest that anything admitted anywhere has been unknown elsewhere.
    #[must_use]
    pub fn worst_lag(&self) -> u64 {
        let pairs = |here: usize| (0..self.count()).filter(move |there| *there != here);
        let waits = (0..self.count())
            .flat_map(|here| pairs(here).map(move |there| (here, there)))
            .map(|(here, there)| self.now - self.links[here][there].known);
        waits.fold(self.lag, u64::max)
    }

    /// Nobody takes any more, nothing is lost any more, and everybody sends everybody
    /// everything, twice after all has come that was noted of keys that have gone since.
    pub fn settle(&mut self) {
        self.queue.clear();
        for event in std::mem::take(&mut self.events).into_iter().flatten() {
            if let Event::Round(Round { from, to, notes, .. }) = event {
                self.links[from][to].put_back(notes);
            }
        }
        self.refusing.fill(false);
        for _ in 0..3 {
            let mut rounds = Vec::new();
            for from in 0..self.count() {
                let wall = self.wall(from);
                for to in (0..self.count()).filter(|to| *to != from) {
                    let server = &mut self.servers[from];
                    let names = server.names().into_iter();
                    let mut notes = std::mem::take(&mut self.links[from][to].changed);
                    notes.extend(names.filter_map(|name| Some((name, server.state(name, wall)?))));
                    self.links[from][to].down = false;
                    rounds.push(self.round(from, to, notes.into_iter().collect(), true));
                }
            }
            self.now += self.network.delay_us;
            for round in rounds {
                self.arrive(round);
            }
        }
    }

    /// Every server walks over all keys.
    pub fn walk(&mut self) {
        (0..self.count()).for_each(|place| self.visit(place));
    }

    fn visit(&mut self, place: usize) {
        let wall = self.wall(place);
        for name in self.servers[place].names() {
            if let Some(noted) = self.servers[place].visit(name, wall) {
                self.note(place, name, &noted);
            }
        }
    }

    /// Lets time pass in which nothing happens at all.
    pub fn wait(&mut self, us: u64) {
        self.now += us;
    }
}
