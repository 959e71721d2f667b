//! Merge functions: what they are given, may return, and where they may be called.

use crate::calls::{
    PATIENCE, TICK, held, load, load_example, now_us, refused, refused_line, still_server,
};
use claw_testkit::{call, cmd, digest, error, eventually, fields, int, ints, run};
use redis::{ConnectionLike, Value};
use std::thread;

/// Functions that do what they must not, and a few that are odd but right.
pub const BAD: &str = r"#!lua name=bad
local function pack(...) return cmsgpack.pack(...) end
local function register(name, callback, flags)
  redis.register_function({
    function_name = name, callback = callback, flags = flags or {'no-writes'}
  })
end
register('raises', function() error('no luck') end)
register('replies', function() return redis.error_reply('SORRY not today') end)
register('text', function() return 'hello' end)
register('number', function() return 5 end)
register('nothing', function() return nil end)
register('empty', function() return '' end)
register('list', function() return pack({1, 2}) end)
register('no_tokens', function() return pack({timestamp = 1}) end)
register('nan', function() return pack({tokens = 0/0}) end)
register('infinite', function() return pack({tokens = 1/0}) end)
register('owing', function() return pack({tokens = -1000.000001}) end)
register('above', function() return pack({tokens = 1000.000001}) end)
register('far_above', function() return pack({tokens = 1e300}) end)
register('tokens_text', function() return pack({tokens = '5'}) end)
register('weight_0', function() return pack({tokens = 5, userWeight = 0}) end)
register('weight_11', function() return pack({tokens = 5, userWeight = 11}) end)
register('weight_half', function() return pack({tokens = 5, userWeight = 1.5}) end)
register('weight_text', function() return pack({tokens = 5, userWeight = '2'}) end)
register('time_text', function() return pack({tokens = 5, timestamp = 'now'}) end)
register('time_negative', function() return pack({tokens = 5, timestamp = -1}) end)
register('time_far', function(_, args)
  return pack({tokens = 5, timestamp = cmsgpack.unpack(args[1]).now + 31 * 86400e6})
end)
register('two_values', function() return pack({tokens = 5}, 1) end)
register('two_tables', function() return pack({tokens = 5}, {tokens = 6}) end)
register('cut', function() return pack({tokens = 5}):sub(1, -2) end)
register('twice', function() return '\130\166tokens\5\166tokens\6' end)
register('beyond_doubles', function() return pack({tokens = 2^53 + 2}) end)
register('beyond_doubles_whole', function()
  return '\129\166tokens\207\0\32\0\0\0\0\0\2'
end)
register('half', function() return pack({tokens = 999999999999.5}) end)
register('tenths', function() return pack({tokens = 0.1 + 0.2}) end)
register('bytes', function()
  return '\131\196\6tokens\203\64\30\0\0\0\0\0\0\196\9timestamp\202\63\128\0\0\196\10userWeight\202\64\0\0\0'
end)
register('huge', function() return string.rep('x', 1000000) end)
register('deep', function() return string.rep('\145', 100000) end)
register('may_write', function() return pack({tokens = 5}) end, {})
register('does_write', function() redis.call('SET', 'x', '1') return pack({tokens = 5}) end)
register('verifies', function() return redis.call('CL.VERIFY', 'fn:verifies', 'SAMPLES', '1') end)
register('loop', function() while true do end end)
register('average', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return pack({tokens = (a.available + b.available) / 2})
end)
register('sum', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return pack({tokens = a.available + b.available})
end)
register('first', function(_, args)
  local a = cmsgpack.unpack(args[1])
  return pack({tokens = a.tokens, timestamp = a.timestamp, userWeight = a.userWeight})
end)
register('seen', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  local function text(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
      names[i] = name .. '=' .. (name == 'now' and type(t.now) or string.format('%.15g', t[name]))
    end
    return table.concat(names, ' ')
  end
  error(text(a) .. ' | ' .. text(b) .. ' |')
end)
";

#[test]
pub fn what_functions_return_is_checked() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1 userWeight 2"]);
    let no_number = "it returned tokens that are no number";
    let no_weight = "it returned a userWeight that is not 1 to 10";
    let no_record = "it did not return cmsgpack.pack of one table";
    let above = "it returned more tokens than the capacity";
    let no_time = "it returned a timestamp that is no unix microseconds";
    #[rustfmt::skip]
    let table = [
        ("missing",       "Function not found"),
        ("raises",        "no luck"),
        ("replies",       "SORRY not today"),
        ("text",          no_record),
        ("number",        "it returned something else than a string"),
        ("nothing",       "it returned something else than a string"),
        ("empty",         no_record),
        ("list",          no_record),
        ("huge",          no_record),
        ("deep",          no_record),
        ("two_values",    no_record),
        ("two_tables",    no_record),
        ("cut",           no_record),
        ("twice",         "what it returned holds the field 'tokens' twice"),
        ("far_above",     above),
        ("beyond_doubles", above),
        ("beyond_doubles_whole", above),
        ("no_tokens",     "it returned no tokens"),
        ("nan",           no_number),
        ("infinite",      no_number),
        ("owing",         "it returned tokens that owe more than the capacity"),
        ("tokens_text",   no_number),
        ("above",         above),
        ("weight_0",      no_weight),
        ("weight_11",     no_weight),
        ("weight_half",   no_weight),
        ("weight_text",   no_weight),
        ("time_text",     no_time),
        ("time_negative", no_time),
        ("time_far",      no_time),
        ("may_write",     "Can not execute a script with write flag using *_ro command"),
        ("does_write",    "Write commands are not allowed from read-only scripts"),
        ("verifies",      "a strategy fn:NAME cannot be used inside a script or function"),
    ];
    for (name, why) in table {
        let text = refused_line(conn, &format!("CL.MERGE k FROM 1 s STRATEGY fn:{name}"));
        assert!(text.starts_with(&format!("ERR function '{name}': ")), "{name}: {text}");
        assert!(text.contains(why), "{name}: {text}");
        // The second source is refused as the first one is.
        refused_line(conn, &format!("CL.MERGE none FROM 2 s k STRATEGY fn:{name}"));
    }
    // At the largest capacity, too.
    let most = "1000000000000 0/1000 pinned 1";
    call(conn, &["HSET", "most", "tokens", "7", "timestamp", "1", "policy", most]).unwrap();
    for name in ["far_above", "beyond_doubles", "beyond_doubles_whole"] {
        let text = refused_line(conn, &format!("CL.MERGE most FROM 1 s STRATEGY fn:{name}"));
        assert_eq!(text, format!("ERR function '{name}': {above}"));
    }
    assert_eq!(held(conn, "k"), "tokens 7");
    assert_eq!(int(conn, "EXISTS x none"), 0);
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
pub fn what_functions_are_given() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    call(conn, &["HSET", "k", "tokens", "7.25", "timestamp", "1", "policy", "10 0.5/2000"])
        .unwrap();
    call(conn, &["HSET", "s", "tokens", "3", "timestamp", "2", "userWeight", "2"]).unwrap();
    let text = error(conn, "CL.MERGE k FROM 1 s STRATEGY fn:seen");
    let (_, seen) = text.split_once(": user_function:").expect(&text);
    let seen = seen.split_once(": ").expect(&text).1;
    let parts: Vec<&str> = seen.split(" |").collect();
    assert_eq!(
        parts[0],
        "available=10 capacity=10 interval=2000 now=number refill=0.5 timestamp=1 tokens=7.25 \
         userWeight=1"
    );
    assert_eq!(
        parts[1].trim(),
        "available=3 capacity=1000 interval=1000 now=number refill=0 timestamp=2 tokens=3 \
         userWeight=2"
    );
    // What is left out: the moment of the merge, and the greater weight.
    let before = now_us();
    run(conn, &["HSET a tokens 10 timestamp 1", "HSET b tokens 5 timestamp 1 userWeight 3"]);
    assert_eq!(ints(conn, "CL.MERGE a FROM 1 b STRATEGY fn:average"), [1, 1000, 7]);
    assert_eq!(held(conn, "a"), "tokens 7.5 userWeight 3");
    // The clock of Redis 7.0 has milliseconds.
    assert!(fields(conn, "a")["timestamp"].parse::<u64>().unwrap() >= before - 1_000);
    // The first of both, unchanged, is no change.
    let before = digest(conn);
    assert_eq!(ints(conn, "CL.MERGE a FROM 1 b STRATEGY fn:first"), [0, 1000, 7]);
    assert_eq!(digest(conn), before);
    // The policy is that of the winner, not the function's to choose.
    run(conn, &[&format!("HSET b timestamp {}", now_us() + 3_600_000_000)]);
    assert_eq!(ints(conn, "CL.MERGE b FROM 1 k STRATEGY fn:first"), [1, 10, 5]);
    assert_eq!(fields(conn, "b")["policy"], "10 0.5/2000");
}

/// Tokens are taken from the bits of a double, to the nearest millionth.
#[test]
pub fn what_functions_compute_is_stored_as_it_is() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    for (name, expected) in [
        ("half", "tokens 999999999999.5"),
        ("tenths", "tokens 0.3"),
        ("bytes", "tokens 7.5 userWeight 2"),
    ] {
        run(conn, &["DEL k s", "HSET s tokens 3 timestamp 1"]);
        let most = "1000000000000 0/1000 pinned 1";
        call(conn, &["HSET", "k", "tokens", "7", "timestamp", "1", "policy", most]).unwrap();
        run(conn, &[&format!("CL.MERGE k FROM 1 s STRATEGY fn:{name}")]);
        let found = held(conn, "k").replace(&format!("policy {most} "), "");
        assert_eq!(found, expected, "{name}");
    }
}

/// What a double cannot hold exactly comes back as it was.
#[test]
pub fn functions_hand_on_what_they_do_not_touch() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    for tokens in ["999999999999.999999", "123456789012.345679", "0.000001", "999999999999"] {
        run(conn, &["DEL k s"]);
        for key in ["k", "s"] {
            let policy = "1000000000000 0.3/700 pinned 1";
            let at = now_us() + 3_600_000_000;
            call(
                conn,
                &[
                    "HSET",
                    key,
                    "tokens",
                    tokens,
                    "timestamp",
                    &at.to_string(),
                    "policy",
                    policy,
                    "remainder",
                    "1260",
                ],
            )
            .unwrap();
        }
        run(conn, &["HSET s userWeight 2"]);
        let before = digest(conn);
        assert_eq!(ints(conn, "CL.MERGE k FROM 1 s STRATEGY fn:first")[0], 0, "{tokens}");
        assert_eq!(digest(conn), before, "{tokens}");
    }
}

#[test]
pub fn the_examples_merge() {
    let server = still_server();
    let conn = &mut server.connection();
    for file in ["published-weighted.lua", "premium-first.lua", "hard-ceiling.lua"] {
        load_example(conn, file);
    }
    #[rustfmt::skip]
    let table = [
        // function          k           s           k afterwards
        ("published_weighted", "200 1", "500 2", "tokens 400 userWeight 2"),
        ("published_weighted", "400 2", "500 2", "tokens 800 userWeight 2"),
        ("published_weighted", "800 2", "900 2", "tokens 1000 userWeight 2"),
        ("premium_first",      "200 1", "500 2", "tokens 500 userWeight 2"),
        ("premium_first",      "500 2", "200 1", "tokens 500 userWeight 2"),
        ("premium_first",      "500 2", "200 2", "tokens 200 userWeight 2"),
        ("hard_ceiling",       "200 1", "500 1", "tokens 100 userWeight 1"),
        ("hard_ceiling",       "200 1", "50 1",  "tokens 50 userWeight 1"),
        ("hard_ceiling",       "200 1", "50 2",  "tokens 50 userWeight 2"),
        ("hard_ceiling",       "200 1", "200 1", "tokens 200 userWeight 1"),
    ];
    for (function, k, s, expected) in table {
        run(conn, &["DEL k s"]);
        for (key, bucket) in [("k", k), ("s", s)] {
            let (tokens, weight) = bucket.split_once(' ').unwrap();
            run(conn, &[&format!("HSET {key} tokens {tokens} timestamp 1 userWeight {weight}")]);
        }
        run(conn, &[&format!("CL.MERGE k FROM 1 s STRATEGY fn:{function}")]);
        assert_eq!(held(conn, "k"), expected, "{function} of {k} and {s}");
    }
    // They are saved with the data, like any function.
    let dir = server.stop_saving();
    let server = dir.start();
    let conn = &mut server.connection();
    assert_eq!(ints(conn, "CL.MERGE k FIELDS tokens 9 timestamp 1 STRATEGY fn:hard_ceiling")[0], 1);
}

#[test]
pub fn a_function_that_does_not_end_can_be_killed() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    run(conn, &["CONFIG SET busy-reply-threshold 20"]);
    let before = digest(conn);
    thread::scope(|scope| {
        let merging = scope.spawn(|| {
            let conn = &mut server.connection();
            conn.set_read_timeout(Some(PATIENCE)).unwrap();
            call(conn, &["CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "fn:loop"])
        });
        eventually(PATIENCE, TICK, "the function to be killed", || {
            cmd(conn, "FUNCTION KILL").is_ok()
        });
        let text = merging.join().unwrap().unwrap_err();
        assert!(text.starts_with("ERR function 'loop': ") && text.contains("killed"), "{text}");
    });
    assert_eq!(digest(conn), before);
    assert_eq!(ints(conn, "CL.MERGE k FROM 1 s STRATEGY min"), [1, 1000, 3]);
}

/// A function inside of a script crashes servers; it is refused before that.
#[test]
pub fn functions_in_scripts_are_refused_and_built_ins_are_not() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    load(
        conn,
        "#!lua name=relay\nredis.register_function('relay', function(_, words) \
         return redis.call(unpack(words)) end)",
    );
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    let why = "a strategy fn:NAME cannot be used inside a script or function";
    let script = "return redis.call(unpack(ARGV))";
    for words in [
        &["CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "fn:premium_first"][..],
        &["CL.VERIFY", "fn:premium_first", "SAMPLES", "10"][..],
    ] {
        let eval = [&["EVAL", script, "0"][..], words].concat();
        let fcall = [&["FCALL", "relay", "0"][..], words].concat();
        for line in [eval, fcall] {
            let words: Vec<&[u8]> = line.iter().map(|word| word.as_bytes()).collect();
            let text = refused(conn, &words);
            assert!(text.contains(why), "{text}");
        }
    }
    // With the default strategy, too.
    run(conn, &["CONFIG SET claw.merge-strategy fn:premium_first"]);
    let text = call(conn, &["EVAL", script, "0", "CL.MERGE", "k", "FROM", "1", "s"]).unwrap_err();
    assert!(text.contains(why), "{text}");

    for how in [["EVAL", script], ["FCALL", "relay"]] {
        run(conn, &["HSET k tokens 7 timestamp 1"]);
        let words = ["0", "CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "min"];
        let answer = call(conn, &[&how[..], &words[..]].concat()).unwrap();
        assert_eq!(answer, Value::Array([1, 1000, 3].map(Value::Int).to_vec()), "{how:?}");
        assert_eq!(held(conn, "k"), "tokens 3");
        let verified = [&how[..], &["0", "CL.VERIFY", "min", "SAMPLES", "10"][..]].concat();
        assert!(call(conn, &verified).is_ok());
    }
    assert!(server.is_alive());
}

#[test]
pub fn transactions() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    run(conn, &["MULTI", "CL.MERGE k FROM 1 s STRATEGY fn:premium_first", "CL.TAKE k 1"]);
    run(conn, &["CL.MERGE k FROM 1 none STRATEGY min", "CL.MERGE k FROM 1 s STRATEGY fn:nope"]);
    run(conn, &["CL.STATE none", "CL.VERIFY fn:premium_first SAMPLES 10"]);
    let packed = redis::cmd("EXEC").get_packed_command();
    let Value::Array(answers) = conn.req_packed_command(&packed).unwrap() else {
        panic!("EXEC answers with an array");
    };
    assert_eq!(answers[0], Value::Array([1, 1000, 3].map(Value::Int).to_vec()));
    assert_eq!(answers[2], Value::Array([0, 1000, 2].map(Value::Int).to_vec()));
    assert!(matches!(&answers[3], Value::ServerError(_)), "{:?}", answers[3]);
    assert_eq!(answers[4], Value::Nil);
    assert!(matches!(&answers[5], Value::Array(_)));
    assert_eq!(held(conn, "k"), "tokens 2");
}

/// A function decides tokens, and not policies: a pin for a time stays, with its end, whichever
/// side has it and whether the function returns a state as it was or another.
#[test]
fn a_pin_for_a_time_stays() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    load(
        conn,
        r"#!lua name=fewer
redis.register_function({function_name = 'fewer', flags = {'no-writes'}, callback = function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return a.tokens < b.tokens and args[1] or args[2]
end})",
    );
    for function in ["fewer", "tenths"] {
        for pinned in ["k", "other"] {
            run(conn, &["FLUSHALL", "CL.TAKE k 3", "CL.TAKE other 4"]);
            run(conn, &[&format!("CL.POLICY {pinned} CAPACITY 10 REFILL 1 FOR 60000")]);
            let temporary = fields(conn, pinned)["temporary"].clone();
            run(conn, &[&format!("CL.MERGE k FROM 1 other STRATEGY fn:{function}")]);
            let merged = fields(conn, "k");
            assert_eq!(merged.get("temporary"), Some(&temporary), "{function}, {pinned}");
            assert_eq!(merged.get("policy"), None, "{function}, {pinned}");
            assert_eq!(ints(conn, "CL.PEEK k")[1], 10, "{function}, {pinned}");
        }
    }
}
