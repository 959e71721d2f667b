//! Random commands, each with what its answer has to be.

use crate::bucket;
use crate::grammar::{self, Shape};
use crate::nasty::{self, FIELDS};
use crate::resp::words;
use crate::rng::Rng;

type Args = Vec<Vec<u8>>;

/// What an answer has to be.
#[derive(Clone, Debug)]
pub enum Expect {
    /// There is none.
    Silence,
    /// Whatever a server says.
    Anything,
    Ok,
    Error,
    /// That of a call of the module, made by this command.
    Call(Args, Shape),
    /// The same, unless the server has forgotten the script.
    Cached(Args, Shape),
    /// The keys of a call.
    Keys(Args),
    Begin,
    Queued(Box<Expect>),
    Exec,
    /// As `Exec`, for a call between questions about its bucket.
    Audit,
    Discard,
}

#[derive(Debug)]
pub struct Step {
    pub args: Args,
    pub expect: Expect,
}

/// The functions that scripts are called through.
pub const LIBRARY: &str = "#!lua name=hostile\n\
    local function any(keys, args) return redis.pcall(unpack(args)) end\n\
    redis.register_function('any', any)\n\
    redis.register_function{function_name='ro', callback=any, flags={'no-writes'}}";
/// The script that is called by its digest.
pub const CACHED: &str = "return redis.call(unpack(ARGV))";

const SCRIPTS: &[&str] = &[
    "return redis.call(unpack(ARGV))",
    "return redis.pcall(unpack(ARGV))",
    "redis.setresp(3) return redis.pcall(unpack(ARGV))",
    "local r for i = 1, 20 do r = redis.pcall(unpack(ARGV)) end return r",
    "redis.pcall('CL.TAKE') redis.pcall('CL.TAKE', KEYS[1], -1) return redis.pcall(unpack(ARGV))",
    "redis.pcall('HSET', KEYS[1], 'note', '%s') return redis.pcall(unpack(ARGV))",
    "#!lua\nreturn redis.pcall(unpack(ARGV))",
    "#!lua flags=allow-oom\nreturn redis.call(unpack(ARGV))",
];

const CALLS: &[&str] = &[
    "CL.TAKE",
    "CL.TAKE",
    "CL.TAKE",
    "CL.PEEK",
    "CL.GIVE",
    "CL.GIVE",
    "CL.SETTLE",
    "CL.SETTLE",
    "CL.TAKEALL",
    "CL.POLICY",
    "CL.THROTTLE",
];

/// Where commands of the server itself have `K`, a key stands, `F` a field of
/// a bucket and `N` a number.
const SETS: &[&str] = &[
    "SET K N",
    "APPEND K N",
    "INCRBY K N",
    "SETBIT K 100 1",
    "PFADD K N",
    "LPUSH K N",
    "SADD K N",
    "ZADD K 1 N",
    "XADD K * f N",
    "GEOADD K 13.4 52.5 N",
    "HSET K note N",
    "DEL K",
    "UNLINK K",
    "RENAME K K",
    "COPY K K",
    "COPY K K REPLACE",
    "MOVE K 1",
    "EXPIRE K 1",
    "PEXPIRE K 1",
    "PEXPIREAT K N",
    "PERSIST K",
    "EXPIRE K 100000",
    "HDEL K F",
    "HDEL K F F F F F",
    "HINCRBY K F N",
    "HINCRBYFLOAT K F N",
    "HSETNX K F N",
    "HEXPIRE K 1 FIELDS 1 F",
    "HPEXPIRE K 1 FIELDS 2 tokens timestamp",
    "HPEXPIRE K 1 FIELDS 1 F",
    "HPERSIST K FIELDS 1 F",
    "HPEXPIRE K 2 FIELDS 5 tokens timestamp userWeight policy remainder",
    "GETDEL K",
    "TOUCH K",
    "RESTORE K 0 N",
    "SORT K",
    "XTRIM K MAXLEN 1",
    "BITOP NOT K K",
    "PFMERGE K K",
];
const LOOKS: &[&str] = &[
    "GET K",
    "HGETALL K",
    "HLEN K",
    "HSCAN K 0",
    "HRANDFIELD K 3",
    "TYPE K",
    "TTL K",
    "DUMP K",
    "EXISTS K",
    "OBJECT ENCODING K",
    "OBJECT FREQ K",
    "OBJECT IDLETIME K",
    "OBJECT REFCOUNT K",
    "MEMORY USAGE K",
    "MEMORY USAGE K SAMPLES 0",
    "DEBUG OBJECT K",
    "DEBUG DIGEST-VALUE K",
    "SCAN 0 COUNT 5",
    "RANDOMKEY",
    "DBSIZE",
    "INFO claw",
    "COMMAND DOCS CL.TAKE",
    "COMMAND INFO CL.TAKEALL",
    "ACL DRYRUN default CL.TAKE K",
    "CL.NOSUCH K",
    "XRANGE K - +",
    "PFCOUNT K",
    "BITCOUNT K",
    "HTTL K FIELDS 1 F",
    "LATENCY HISTOGRAM cl.take",
    "SLOWLOG GET 1",
];

/// Commands for one connection after another.
pub struct Traffic {
    pub rng: Rng,
    /// Of [`CACHED`].
    pub digest: Vec<u8>,
}

impl Traffic {
    /// Some commands that belong together, to be sent on one connection.
    pub fn episode(&mut self, steps: &mut Vec<Step>) {
        match self.rng.below(1_000) {
            0..440 => steps.push(self.call()),
            440..540 => self.audit(steps),
            540..660 => steps.push(self.script()),
            660..730 => self.transaction(steps),
            730..850 => self.sabotage(steps),
            850..920 => steps.push(self.template(SETS)),
            920..960 => steps.push(self.template(LOOKS)),
            960..970 => steps.push(self.inspection()),
            970..980 => steps.push(self.crowd()),
            980..984 => steps.push(self.config()),
            984..998 => self.state(steps),
            _ => steps.push(self.upheaval()),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.below(100) {
            0..80 => format!("bucket:{}", self.rng.below(150)).into_bytes(),
            80..85 => format!("rare:{}", self.rng.below(1_000)).into_bytes(),
            _ => nasty::key(&mut self.rng),
        }
    }

    /// A call of the module; about a third of them are wrong.
    fn call(&mut self) -> Step {
        let args = self.call_args();
        let shape = grammar::shape(&args);
        Step { expect: Expect::Call(args.clone(), shape), args }
    }

    fn call_args(&mut self) -> Args {
        let mut args = self.good_args();
        if self.rng.percent(30) {
            for _ in 0..=self.rng.below(2) {
                self.mutate(&mut args);
            }
        }
        args
    }

    fn good_args(&mut self) -> Args {
        let rng = &mut self.rng;
        let name = rng.pick(CALLS);
        if name == "CL.TAKEALL" {
            let count = 1 + self.rng.below(5);
            return self.take_all(count);
        }
        let mut args = vec![name.as_bytes().to_vec(), self.key()];
        let rng = &mut self.rng;
        let text = |n: u64| n.to_string().into_bytes();
        match name {
            "CL.THROTTLE" => {
                args.extend([
                    text(capacity(rng).max(1) - 1),
                    text(capacity(rng).max(1)),
                    text(period(rng)),
                ]);
                if rng.percent(50) {
                    let sign = rng.pick(&["", "-"]);
                    args.push(format!("{sign}{}", tokens(rng)).into_bytes());
                }
                return args;
            }
            "CL.POLICY" if rng.once_in(3) => args.push(b"RESET".to_vec()),
            "CL.POLICY" => {
                let weight = [b"WEIGHT".to_vec(), text(1 + rng.below(10) as u64)];
                self.policy_options(&mut args);
                if self.rng.percent(30) {
                    args.extend(weight);
                }
            }
            "CL.SETTLE" => {
                args.extend([text(tokens(rng)), text(tokens(rng))]);
                if rng.percent(40) {
                    self.policy_options(&mut args);
                }
            }
            _ => {
                if rng.percent(70) {
                    args.push(text(tokens(rng)));
                }
                if name != "CL.GIVE" && rng.percent(40) {
                    self.policy_options(&mut args);
                }
                if name == "CL.TAKE" {
                    if self.rng.percent(20) {
                        args.push(b"PARTIAL".to_vec());
                    }
                    self.keep(&mut args);
                }
            }
        }
        args
    }

    fn policy_options(&mut self, args: &mut Args) {
        let rng = &mut self.rng;
        let mut options = Vec::new();
        // Mostly a whole policy.
        let whole = rng.percent(80);
        if whole || rng.percent(40) {
            options.push([b"CAPACITY".to_vec(), capacity(rng).to_string().into_bytes()]);
        }
        if whole || rng.percent(70) {
            options.push([b"REFILL".to_vec(), refill(rng)]);
            if rng.percent(60) {
                options.push([b"INTERVAL".to_vec(), interval(rng).to_string().into_bytes()]);
            }
        }
        // In any order.
        while !options.is_empty() {
            let [mut option, value] = options.swap_remove(rng.below(options.len()));
            if rng.percent(30) {
                option.make_ascii_lowercase();
            }
            args.extend([option, value]);
        }
    }

    fn take_all(&mut self, count: usize) -> Args {
        let mut args = vec![b"CL.TAKEALL".to_vec()];
        for group in 0..count {
            if group > 0 {
                args.push(self.rng.pick(&["AND", "and", "And"]).as_bytes().to_vec());
            }
            args.push(self.key());
            if self.rng.percent(60) {
                args.push(tokens(&mut self.rng).to_string().into_bytes());
            }
            if self.rng.percent(25) && count < 50 {
                self.policy_options(&mut args);
            }
            self.keep(&mut args);
        }
        args
    }

    fn keep(&mut self, args: &mut Args) {
        if self.rng.percent(10) {
            args.extend([b"KEEP".to_vec(), tokens(&mut self.rng).to_string().into_bytes()]);
        }
    }

    fn mutate(&mut self, args: &mut Args) {
        const JUNK: &[&str] = &[
            "PARTIAL",
            "CAPACITY",
            "REFILL",
            "INTERVAL",
            "WEIGHT",
            "RESET",
            "TOKENS",
            "KEEP",
            "AND",
            "and",
            "CAPACIT",
            "partial",
            "REFILL ",
            "FOO",
            "",
            "\0",
            "%s%n",
            "CAPACITY\r\n",
            "1",
            "0",
        ];
        let rng = &mut self.rng;
        // The command's name stays.
        let any = 1 + rng.below(args.len());
        let (at, other) = (any.min(args.len() - 1), 1 + rng.below(args.len()));
        match rng.below(9) {
            0..3 if at > 0 => args[at] = nasty::number(rng),
            3 if at > 0 => drop(args.remove(at)),
            4 if at > 0 => args.insert(other, args[at].clone()),
            5 => args.insert(any, rng.pick(JUNK).as_bytes().to_vec()),
            6 if at > 0 => {
                let last = args.len() - 1;
                args.swap(at, other.min(last));
            }
            7 if at > 0 => {
                let len = args[at].len();
                args[at].truncate(rng.below(len + 1));
            }
            8 if at > 0 => args[at].make_ascii_lowercase(),
            _ => args.truncate(other),
        }
    }

    /// A call, and a look at its bucket before and after it, as one transaction.
    fn audit(&mut self, steps: &mut Vec<Step>) {
        let args = loop {
            let args = self.good_args();
            let reads =
                args[0] == b"CL.PEEK" || args[0] == b"CL.POLICY" || args[0] == b"CL.TAKEALL";
            if !reads {
                break args;
            }
        };
        let key = args[1].clone();
        let shape = grammar::shape(&args);
        let queued = |args, expect| Step { args, expect: Expect::Queued(Box::new(expect)) };
        let questions = || bucket::questions(&key).map(|args| queued(args, Expect::Anything));
        steps.push(Step { args: words("MULTI"), expect: Expect::Begin });
        steps.extend(questions());
        steps.push(queued(args.clone(), Expect::Call(args, shape)));
        steps.extend(questions());
        steps.push(Step { args: words("EXEC"), expect: Expect::Audit });
    }

    fn script(&mut self) -> Step {
        let call = self.call_args();
        let shape = grammar::shape(&call);
        let rng = &mut self.rng;
        let key = call.get(1).cloned().unwrap_or_default();
        let text = |script: &str| script.as_bytes().to_vec();
        let (mut args, reads_only) = match rng.below(10) {
            0 => (vec![text("EVAL_RO"), text(SCRIPTS[rng.below(2)])], true),
            1 => {
                let script = "#!lua flags=no-writes\nreturn redis.pcall(unpack(ARGV))";
                (vec![text("EVAL"), text(script)], true)
            }
            2 => (words("FCALL_RO ro"), true),
            3 => (words("FCALL ro"), true),
            // Refused before it runs, whatever it would call.
            4 if rng.once_in(4) => {
                return Step { args: words("FCALL_RO any 0 PING"), expect: Expect::Error };
            }
            4 => (words("FCALL any"), false),
            5 => (vec![text("EVALSHA"), self.digest.clone()], false),
            _ => (vec![text("EVAL"), text(rng.pick(SCRIPTS))], false),
        };
        let by_digest = args[0] == b"EVALSHA";
        args.extend([b"1".to_vec(), key]);
        args.extend(call.iter().cloned());
        let refused = reads_only && !grammar::reads_only(&call);
        let shape = if refused { Shape::Refused } else { shape };
        let expect =
            if by_digest { Expect::Cached(call, shape) } else { Expect::Call(call, shape) };
        Step { args, expect }
    }

    fn transaction(&mut self, steps: &mut Vec<Step>) {
        if self.rng.percent(30) {
            let args = vec![b"WATCH".to_vec(), self.key()];
            steps.push(Step { args, expect: Expect::Ok });
        }
        steps.push(Step { args: words("MULTI"), expect: Expect::Begin });
        for _ in 0..self.rng.below(8) {
            let step = match self.rng.below(10) {
                0..6 => self.call(),
                6 => self.script(),
                7 => self.template(SETS),
                8 => self.template(LOOKS),
                _ if self.rng.once_in(4) => {
                    Step { args: words("WATCH k"), expect: Expect::Anything }
                }
                _ => self.inspection(),
            };
            let expect = Expect::Queued(Box::new(step.expect));
            steps.push(Step { args: step.args, expect });
        }
        steps.push(match self.rng.percent(80) {
            true => Step { args: words("EXEC"), expect: Expect::Exec },
            false => Step { args: words("DISCARD"), expect: Expect::Discard },
        });
    }

    /// Fields written by hand, good and bad, and then a call.
    fn sabotage(&mut self, steps: &mut Vec<Step>) {
        let key = self.key();
        let mut args = vec![b"HSET".to_vec(), key.clone()];
        for _ in 0..=self.rng.below(4) {
            let field = self.rng.pick(FIELDS);
            args.extend([field.as_bytes().to_vec(), nasty::field_text(&mut self.rng, field)]);
        }
        if self.rng.percent(60) {
            steps.push(Step { args: vec![b"DEL".to_vec(), key], expect: Expect::Anything });
        }
        let mut call = self.good_args();
        call[1] = args[1].clone();
        let shape = grammar::shape(&call);
        steps.push(Step { args, expect: Expect::Anything });
        steps.push(Step { expect: Expect::Call(call.clone(), shape), args: call });
    }

    fn template(&mut self, from: &[&str]) -> Step {
        let template = self.rng.pick(from);
        let word = |word: &str| match word {
            "K" => self.key(),
            "F" => self.rng.pick(FIELDS).as_bytes().to_vec(),
            "N" => nasty::number(&mut self.rng),
            _ => word.as_bytes().to_vec(),
        };
        let args = template.split(' ').map(word).collect();
        Step { args, expect: Expect::Anything }
    }

    /// What the server itself makes of a call.
    fn inspection(&mut self) -> Step {
        let call = self.call_args();
        let shape = grammar::shape(&call);
        let (command, expect) = match self.rng.below(3) {
            0 => ("ACL DRYRUN default", Expect::Anything),
            1 => ("COMMAND GETKEYSANDFLAGS", Expect::Anything),
            _ if shape == Shape::Refused => ("COMMAND GETKEYS", Expect::Anything),
            _ => ("COMMAND GETKEYS", {
                let keys = grammar::keys(&call).into_iter().map(<[u8]>::to_vec);
                Expect::Keys(keys.collect())
            }),
        };
        let mut args = words(command);
        args.extend(call);
        Step { args, expect }
    }

    /// Many keys at once, or many fields.
    fn crowd(&mut self) -> Step {
        let many = 50 + self.rng.below(200);
        match self.rng.below(4) {
            0 => {
                let mut args = vec![b"HSET".to_vec(), self.key()];
                for i in 0..1_000 {
                    args.extend([format!("field{i}").into_bytes(), b"value".to_vec()]);
                }
                Step { args, expect: Expect::Anything }
            }
            1 => {
                let mut args = vec![b"DEL".to_vec()];
                args.extend((0..many).map(|_| self.key()));
                Step { args, expect: Expect::Anything }
            }
            _ => {
                let args = self.take_all(many);
                let shape = grammar::shape(&args);
                Step { expect: Expect::Call(args.clone(), shape), args }
            }
        }
    }

    fn config(&mut self) -> Step {
        let rng = &mut self.rng;
        let refill = if rng.percent(60) { refill(rng) } else { nasty::number(rng) };
        let capacity = match rng.percent(60) {
            true => capacity(rng).to_string().into_bytes(),
            false => nasty::number(rng),
        };
        let mut args = words("CONFIG SET");
        let expect = match rng.below(10) {
            8 | 9 => {
                let rules = rules(rng);
                args.extend([b"claw.policies".to_vec(), rules.into_bytes()]);
                Expect::Ok
            }
            0 => {
                args.extend([b"claw.max-tokens".to_vec(), capacity]);
                Expect::Anything
            }
            1 => {
                args.extend([b"claw.refill-rate-per-sec".to_vec(), refill.clone()]);
                match grammar::refill(&refill) {
                    Some(_) => Expect::Ok,
                    None => Expect::Error,
                }
            }
            // Both or none.
            2 | 3 => {
                args.extend([b"claw.max-tokens".to_vec(), capacity]);
                args.extend([b"claw.refill-rate-per-sec".to_vec(), refill]);
                Expect::Anything
            }
            4 => {
                args.extend([b"claw.nosuch".to_vec(), refill]);
                Expect::Error
            }
            5 => {
                args.extend([b"hash-max-listpack-value".to_vec(), period(rng).to_string().into()]);
                Expect::Anything
            }
            6 => {
                let entries = rng.below(64).to_string().into_bytes();
                args.extend([b"hash-max-listpack-entries".to_vec(), entries]);
                Expect::Ok
            }
            _ => {
                let events = rng.pick(&["", "KEA", "Kh"]).as_bytes().to_vec();
                args.extend([b"notify-keyspace-events".to_vec(), events]);
                Expect::Ok
            }
        };
        Step { args, expect }
    }

    /// Changes of the connection.
    fn state(&mut self, steps: &mut Vec<Step>) {
        let mut push = |line: &str, expect| steps.push(Step { args: words(line), expect });
        match self.rng.below(12) {
            0 | 1 => push(self.rng.pick(&["HELLO 2", "HELLO 3"]), Expect::Anything),
            2 => push(self.rng.pick(&["HELLO", "HELLO 4", "HELLO x"]), Expect::Anything),
            3 => push("RESET", Expect::Anything),
            4 => push("SELECT 0", Expect::Ok),
            5 => push(self.rng.pick(&["SELECT 0", "SELECT 1", "SELECT 9"]), Expect::Ok),
            6 => push(self.rng.pick(&["EXEC", "DISCARD", "SELECT -1"]), Expect::Error),
            7 => push("UNWATCH", Expect::Ok),
            8 => {
                // In RESP2 it is refused.
                let switch = self.rng.pick(&["ON", "ON BCAST", "OFF"]);
                push(&format!("CLIENT TRACKING {switch}"), Expect::Anything);
            }
            9 => {
                push("CLIENT REPLY SKIP", Expect::Silence);
                let call = self.call();
                steps.push(Step { args: call.args, expect: Expect::Silence });
            }
            10 => {
                push("CLIENT REPLY OFF", Expect::Silence);
                for _ in 0..self.rng.below(20) {
                    let step = if self.rng.percent(80) { self.call() } else { self.script() };
                    steps.push(Step { args: step.args, expect: Expect::Silence });
                }
                steps.push(Step { args: words("CLIENT REPLY ON"), expect: Expect::Ok });
            }
            _ => push("MULTI extra", Expect::Error),
        }
    }

    /// What touches everybody, and is rare.
    fn upheaval(&mut self) -> Step {
        let line = match self.rng.below(60) {
            0 => "FLUSHDB",
            1 => "FLUSHDB ASYNC",
            2..17 => "SWAPDB 0 1",
            17..22 => "SWAPDB 0 9",
            22..27 => "SCRIPT FLUSH",
            27..37 => "INFO everything",
            _ => {
                let args = vec![b"SCRIPT".to_vec(), b"LOAD".to_vec(), CACHED.into()];
                return Step { args, expect: Expect::Anything };
            }
        };
        Step { args: words(line), expect: Expect::Anything }
    }
}

fn tokens(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0 => 0,
        1..6 => 1,
        6 => 10,
        7 => 1_000,
        8 => rng.any_size() % grammar::MAX_TOKENS,
        _ => grammar::MAX_TOKENS,
    }
}

fn capacity(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.below(2) as u64,
        1..4 => 10,
        4 => 1_000,
        5 | 6 => 1 + rng.any_size() % grammar::MAX_TOKENS,
        _ => grammar::MAX_TOKENS,
    }
}

fn refill(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => "0".into(),
        1 => "0.000001".into(),
        2 => "1000000000000".into(),
        3 | 4 => format!("{}.{}", rng.any_size() % 1_000, rng.below(1_000_000)).into_bytes(),
        5 => (rng.any_size() % grammar::MAX_TOKENS).to_string().into_bytes(),
        _ => "5".into(),
    }
}

/// Rules that fit many keys, few, or one.
fn rules(rng: &mut Rng) -> String {
    let patterns = ["*", "bucket:*", "bucket:1*", "bucket:12*", "bucket:7", "bucket:13", "rare:*"];
    let mut text = String::new();
    for pattern in patterns {
        if rng.percent(25) {
            let (capacity, interval) = (capacity(rng), interval(rng));
            let refill = String::from_utf8(refill(rng)).expect("digits");
            text += &format!("{pattern} {capacity} {refill}/{interval};");
        }
    }
    text
}

fn interval(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => 1,
        1 => 7,
        2 => grammar::MAX_INTERVAL_MS,
        3 => 1 + rng.any_size() % grammar::MAX_INTERVAL_MS,
        _ => 1_000,
    }
}

fn period(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => 1,
        1 => 31_622_400,
        _ => 1 + rng.below(1_000) as u64,
    }
}
