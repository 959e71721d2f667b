//! States on their way to the nodes of a peer: sorted by node, sent in commands that follow
//! each other, and sorted again by what the replies say.

use super::PeerConnections;
use crate::backlog::QueuedState;
use crate::backoff::PRESENT;
use crate::connection::{Fault, FaultKind};
use crate::reply::{Refusal, Verdict, judge, judge_states};
use crate::status::add;
use crate::wire;
use redis::Value;
use std::collections::VecDeque;
use std::time::Instant;

/// How often states of one round are sent elsewhere, when slots move.
const REDIRECTIONS: usize = 5;
/// About how many bytes of keys and states one command has. The server that gets it does
/// nothing else meanwhile.
const COMMAND_BYTES: usize = 1 << 16;

/// A state on its way to a node.
struct Delivery {
    noted: QueuedState,
    /// The node is only about to get the slot: say ASKING first.
    asking: bool,
}

/// What one node is sent in one pass.
struct NodeQueue {
    node: usize,
    waiting: VecDeque<Delivery>,
    sent: VecDeque<Delivery>,
    /// The commands that these were sent in.
    commands: VecDeque<Sent>,
    /// Why some state was not taken, if it may be later.
    refusal: Option<Refusal>,
}

impl NodeQueue {
    fn new(node: usize) -> Self {
        Self {
            node,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            commands: VecDeque::new(),
            refusal: None,
        }
    }

    /// How many of the waiting states the next command has, of at most `most`: of one
    /// database, and not much longer than is good for it.
    fn next_command(&self, most: usize) -> Sent {
        let Some(first) = self.waiting.front() else { return Sent { states: 0, asking: false } };
        let mut bytes = 0_usize;
        let fits = |delivery: &&Delivery| {
            let entry = &delivery.noted.entry;
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(entry.key().len()).saturating_add(entry.state().len());
            entry.db() == first.noted.entry.db()
                && delivery.asking == first.asking
                && (is_first || bytes <= COMMAND_BYTES)
        };
        Sent {
            states: self.waiting.iter().take(most.max(1)).take_while(fits).count(),
            asking: first.asking,
        }
    }
}

/// A command that has been sent and not been answered.
struct Sent {
    states: usize,
    /// `ASKING` went before it, and is answered too.
    asking: bool,
}

/// Where a state has to go.
enum Route {
    Owner,
    /// The node of this index.
    Ask(usize),
}
impl PeerConnections<'_> {
    /// Sends states to wherever they belong. Returns those that did not arrive.
    pub fn deliver(&mut self, states: Vec<QueuedState>) -> Vec<QueuedState> {
        let mut failed = Vec::new();
        let mut todo: Vec<(QueuedState, Route)> =
            states.into_iter().map(|noted| (noted, Route::Owner)).collect();
        // Once even without states: a node may have been refusing what is not there any more.
        for pass in 0..=REDIRECTIONS {
            if pass > 0 && todo.is_empty() {
                break;
            }
            let mut queues = self.queues(std::mem::take(&mut todo), &mut failed);
            while queues.iter().any(|queue| !queue.waiting.is_empty()) {
                for queue in &mut queues {
                    self.fill(queue, &mut failed);
                }
                for queue in &mut queues {
                    self.read_replies(queue, &mut todo, &mut failed);
                }
            }
            for queue in &mut queues {
                self.rest(queue, &mut failed);
            }
        }
        failed.extend(todo.into_iter().map(|(noted, _)| noted));
        self.see_who_is_behind(&failed);
        self.show_state();
        failed
    }

    /// What did not reach one node is nothing that another one lacks.
    fn see_who_is_behind(&mut self, failed: &[QueuedState]) {
        self.unrouted = false;
        for node in &mut self.nodes {
            node.behind = false;
        }
        for noted in failed {
            let owner = self.owner(noted.entry.key());
            match owner.and_then(|at| self.nodes.get_mut(at)) {
                Some(node) => node.behind = true,
                None => self.unrouted = true,
            }
        }
    }

    /// Sorts states by node.
    fn queues(
        &mut self,
        todo: Vec<(QueuedState, Route)>,
        failed: &mut Vec<QueuedState>,
    ) -> Vec<NodeQueue> {
        let mut queues: Vec<NodeQueue> = (0..self.nodes.len()).map(NodeQueue::new).collect();
        let now = Instant::now();
        for (noted, route) in todo {
            let (node, asking) = match route {
                Route::Ask(node) => (Some(node), true),
                Route::Owner => (self.owner(noted.entry.key()), false),
            };
            let takes =
                |at: &usize| self.nodes.get(*at).is_some_and(|node| node.may_take_states(now));
            match node.filter(takes).and_then(|at| queues.get_mut(at)) {
                Some(queue) => queue.waiting.push_back(Delivery { noted, asking }),
                None => {
                    // A slot without a node.
                    self.stale |= node.is_none();
                    failed.push(noted);
                }
            }
        }
        for queue in &mut queues {
            let Some(node) = self.nodes.get_mut(queue.node) else { continue };
            if queue.waiting.is_empty() && node.may_take_states(now) {
                // There is nothing left that it refuses.
                node.accepted();
            }
            let current = node.connection.as_ref().map_or(0, |connection| connection.db);
            // The database that is selected comes first.
            queue.waiting.make_contiguous().sort_by_key(|delivery| {
                let db = delivery.noted.entry.db();
                (db != current, db)
            });
        }
        queues
    }

    /// Sends the next states of a queue, all of one database.
    fn fill(&mut self, queue: &mut NodeQueue, failed: &mut Vec<QueuedState>) {
        let Some(db) = queue.waiting.front().map(|delivery| delivery.noted.entry.db()) else {
            return;
        };
        match self.select(queue.node, db) {
            Ok(true) => {}
            Ok(false) => {
                // The peer has no such database, and will not have it later.
                let here = |delivery: &Delivery| delivery.noted.entry.db() == db;
                while queue.waiting.pop_front_if(|delivery| here(delivery)).is_some() {
                    add(&self.counters.states_refused, 1);
                }
                return;
            }
            // The connection is as it was.
            Err(Fault { why: text, kind: FaultKind::Refusing(code) }) => {
                queue.refusal = Some(Refusal { code, text });
                return self.rest(queue, failed);
            }
            Err(fault) => return self.give_up(queue, &fault, failed),
        }
        let words = self.messages.states_command();
        debug_assert!(!words.is_empty(), "a command has a name");
        if words.is_empty() {
            let fault = Fault::silent("internal error: there is no command to send states with");
            return self.give_up(queue, &fault, failed);
        }
        self.bytes.clear();
        let limits = &self.access.limits;
        // Keys of one command have to be in one slot.
        let most = if self.slots.is_some() { 1 } else { limits.states_per_command };
        // One command is enough to see whether a node takes states again.
        let refusing = self.nodes.get(queue.node).is_some_and(|node| node.refusing.is_some());
        let chunk_states = if refusing { 1 } else { limits.chunk_states.max(1) };
        while queue.sent.len() < chunk_states
            && (self.bytes.is_empty() || self.bytes.len() < limits.chunk_bytes)
            && queue.waiting.front().is_some_and(|delivery| delivery.noted.entry.db() == db)
        {
            let command = queue.next_command(most);
            if command.asking {
                wire::command(&mut self.bytes, &["ASKING"]);
            }
            wire::begin(&mut self.bytes, words.len().saturating_add(command.states << 1));
            for word in &words {
                wire::word(&mut self.bytes, word);
            }
            for delivery in queue.waiting.drain(..command.states) {
                wire::word(&mut self.bytes, delivery.noted.entry.key());
                wire::word(&mut self.bytes, delivery.noted.entry.state());
                queue.sent.push_back(delivery);
            }
            queue.commands.push_back(command);
        }
        let Some(node) = self.nodes.get_mut(queue.node) else { return };
        let result = match &mut node.connection {
            Some(connection) => connection.send(&self.bytes, self.counters),
            None => Err(Fault::silent("the connection is gone")),
        };
        // One large state shall not hold memory for good.
        self.bytes.shrink_to(limits.chunk_bytes.saturating_mul(2));
        if let Err(fault) = result {
            self.give_up(queue, &fault, failed);
        }
    }

    /// Goes over to a database. Awaits the reply before anything else is sent:
    /// were it refused, states would end up in another database. Returns false
    /// if there is no such database.
    fn select(&mut self, node: usize, db: u32) -> Result<bool, Fault> {
        let node = self.nodes.get_mut(node).and_then(|node| node.connection.as_mut());
        let Some(connection) = node else {
            return Err(Fault::silent("the connection is gone"));
        };
        if connection.db == db {
            return Ok(true);
        }
        let reply = connection.call(&["SELECT", &db.to_string()], self.counters)?;
        let Value::ServerError(error) = &reply else {
            connection.db = db;
            return Ok(true);
        };
        match judge(error) {
            Verdict::Refused(why) => {
                self.counters.error(&format!("SELECT {db}: {why}"));
                Ok(false)
            }
            _ => Err(Refusal::of(&format!("SELECT {db}"), error).into()),
        }
    }

    /// Reads the replies to what was sent.
    fn read_replies(
        &mut self,
        queue: &mut NodeQueue,
        todo: &mut Vec<(QueuedState, Route)>,
        failed: &mut Vec<QueuedState>,
    ) {
        let (mut taken, mut refused) = (false, false);
        while let Some(command) = queue.commands.pop_front() {
            let verdicts = match self.verdicts(queue.node, &command) {
                Ok(verdicts) => verdicts,
                Err(fault) => return self.give_up(queue, &fault, failed),
            };
            let sent = queue.sent.drain(..command.states.min(queue.sent.len()));
            for (Delivery { noted, .. }, verdict) in sent.zip(verdicts) {
                match verdict {
                    Verdict::Done => {
                        taken = true;
                        add(&self.counters.states_sent, 1);
                        self.done.push(noted.entry);
                    }
                    Verdict::Refused(why) => {
                        taken = true;
                        add(&self.counters.states_refused, 1);
                        self.counters.error(&why);
                        self.done.push(noted.entry);
                    }
                    Verdict::Later(refusal) => {
                        failed.push(noted);
                        refused = true;
                        queue.refusal = Some(refusal);
                    }
                    Verdict::Moved { slot, to } => match self.moved(queue.node, slot, &to) {
                        Ok(()) => todo.push((noted, Route::Owner)),
                        Err(text) => {
                            failed.push(noted);
                            refused = true;
                            queue.refusal = Some(Refusal { code: "MOVED".into(), text });
                        }
                    },
                    Verdict::Ask { to } => match self.redirected(queue.node, &to) {
                        Ok(node) => todo.push((noted, Route::Ask(node))),
                        Err(text) => {
                            failed.push(noted);
                            self.counters.error(&text);
                        }
                    },
                }
            }
        }
        if taken && let Some(node) = self.nodes.get_mut(queue.node) {
            node.accepted();
        } else if refused {
            self.rest(queue, failed);
        }
    }

    /// A node that has refused states, and may take them later, is given no more for a
    /// while. Its connection stays.
    fn rest(&mut self, queue: &mut NodeQueue, failed: &mut Vec<QueuedState>) {
        let Some(Refusal { code, text }) = queue.refusal.take() else { return };
        failed.extend(queue.waiting.drain(..).map(|delivery| delivery.noted));
        self.counters.error(&text);
        let Some(node) = self.nodes.get_mut(queue.node).filter(|node| node.ready()) else { return };
        node.refusing = Some(code);
        node.rest.fail(Instant::now(), PRESENT);
    }

    /// Awaits the reply to a command: a verdict on each of its states.
    fn verdicts(&mut self, node: usize, command: &Sent) -> Result<Vec<Verdict>, Fault> {
        let node = self.nodes.get_mut(node).and_then(|node| node.connection.as_mut());
        let connection = node.ok_or_else(|| Fault::silent("the connection is gone"))?;
        if command.asking
            && let Value::ServerError(error) = connection.reply()?
        {
            // What follows it was answered as if it had not been sent.
            return Err(Refusal::of("ASKING", &error).into());
        }
        judge_states(&connection.reply()?, command.states)
            .ok_or_else(|| Fault::silent("a reply to states that does not say what became of each"))
    }

    /// What a queue still has does not arrive, and its node is left for a while.
    fn give_up(&mut self, queue: &mut NodeQueue, fault: &Fault, failed: &mut Vec<QueuedState>) {
        queue.commands.clear();
        failed.extend(queue.sent.drain(..).chain(queue.waiting.drain(..)).map(|p| p.noted));
        queue.refusal = None;
        self.fail(queue.node, fault);
    }
}
