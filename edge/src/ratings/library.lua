#!lua name=claw_ratings_1
-- Ratings of items by users, as a map in which the last write wins: regions that have
-- applied the same records hold the same ratings, in whatever order the records came.
--
-- {ratings}:user:<user>   hash: item -> "millionths stamp region"; the field without a name is
--                         the user's tombstone, "stamp region": nothing up to it counts
-- {ratings}:item:<item>   hash: count, and sum in millionths, of what the hashes of users hold
-- {ratings}:outbox        stream: what was rated and forgotten here; with the field `back` what
--                         this server had lost, and has back from a peer
-- {ratings}:clock         the largest stamp made or applied here
-- {ratings}:sweep         hash: user -> 0, or "cursor run" of this server; from their hashes what
--                         is up to their tombstones has yet to be removed
-- {ratings}:parked        sorted set by stamp: records from further ahead than is believed
-- {ratings}:lease         who does the work of this region that only one may do
-- {ratings}:places        hash: peer -> "id run": up to where in the peer's outbox all is applied,
--                         in which run of this server
-- {ratings}:told          hash: receiver -> id up to which it has been told of the outbox
-- {ratings}:undelivered   stream: notifications that have failed too often
-- {ratings}:again         stream: those of them that are to be tried again
--
-- An error undoes nothing that a function has written. So each of them reads all it needs, of
-- every key that it will write, before it writes anything.

local ROOT = '{ratings}:'
local OUTBOX, CLOCK, SWEEP, PARKED =
  ROOT .. 'outbox', ROOT .. 'clock', ROOT .. 'sweep', ROOT .. 'parked'
local LEASE, PLACES = ROOT .. 'lease', ROOT .. 'places'
local TOLD, UNDELIVERED, AGAIN = ROOT .. 'told', ROOT .. 'undelivered', ROOT .. 'again'

local HIGHEST = 5000000      -- millionths
local AHEAD = 60000000       -- microseconds that a stamp may be ahead of the clock
local EXACT = 9007199254740991 -- integers above it are not exact in Lua's numbers
local LONGEST = 256          -- bytes of a user and of an item
local LONGEST_REGION = 64    -- bytes
local MOST_PARKED = 10000    -- records
local STEP = 200             -- ratings, or records, that one call of claw_tend looks at
local MOST_UNDELIVERED = 10000 -- notifications

local function refuse(text)
  error({err = text})
end

local function whole(text, most, what)
  -- As it is written by format: leading zeros would make two texts of one record.
  if type(text) ~= 'string' or #text > 16 or not (text == '0' or text:find('^[1-9]%d*$')) then
    refuse('ERR ' .. what .. ' is no whole number')
  end
  local number = tonumber(text)
  if number > most then
    refuse('ERR ' .. what .. ' is too large')
  end
  return number
end

local function text_of(number)
  return string.format('%.0f', number)
end

local function name(text, longest, what)
  if type(text) ~= 'string' or #text == 0 or #text > longest then
    refuse('ERR ' .. what .. ' has to have 1 to ' .. longest .. ' bytes')
  end
  return text
end

local function region(text)
  if not name(text, LONGEST_REGION, 'region'):find('^[%w_.-]+$') then
    refuse('ERR region has other characters than letters, digits, _, . and -')
  end
  return text
end

-- Byte by byte: the operators of Lua order texts as the server's locale does, which may be
-- another one in another region.
local function compare_bytes(a, b)
  for place = 1, math.min(#a, #b) do
    local difference = a:byte(place) - b:byte(place)
    if difference ~= 0 then return difference end
  end
  return #a - #b
end

-- Which of two records is the later one: above 0 for the first.
local function compare(a, b)
  if a.stamp ~= b.stamp then return a.stamp - b.stamp end
  return compare_bytes(a.region, b.region)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function read_record(text, key)
  if not text then return nil end
  local micros, stamp, from = text:match('^(%d+) (%d+) (%S+)$')
  if not micros then refuse('ERR ' .. key .. ' has a rating that cannot be understood') end
  return {
    micros = whole(micros, HIGHEST, key .. ': a rating'),
    stamp = whole(stamp, EXACT, key .. ': a stamp'),
    region = from,
  }
end

local function read_tombstone(text, key)
  if not text then return nil end
  local stamp, from = text:match('^(%d+) (%S+)$')
  if not stamp then refuse('ERR ' .. key .. ' has a tombstone that cannot be understood') end
  return {stamp = whole(stamp, EXACT, key .. ': a stamp'), region = from}
end

local function tombstone_of(user)
  local key = ROOT .. 'user:' .. user
  return read_tombstone(redis.call('HGET', key, ''), key)
end

-- The latest rating of an item by a user, and the user's tombstone.
local function read_user(user, item)
  local key = ROOT .. 'user:' .. user
  local values = redis.call('HMGET', key, item, '')
  return read_record(values[1], key), read_tombstone(values[2], key)
end

-- Count and sum of an item.
local function read_item(item)
  local key = ROOT .. 'item:' .. item
  local values = redis.call('HMGET', key, 'count', 'sum')
  return {
    key = key,
    count = whole(values[1] or '0', EXACT, key .. ': count'),
    sum = whole(values[2] or '0', EXACT, key .. ': sum'),
  }
end

-- What an item's numbers become when one rating takes the place of another; either may be nil.
local function replaced(totals, old, new)
  local count = totals.count - (old and 1 or 0) + (new and 1 or 0)
  local sum = totals.sum - (old and old.micros or 0) + (new and new.micros or 0)
  if count < 0 or sum < 0 or count > EXACT or sum > EXACT then
    refuse('ERR ' .. totals.key .. ': count and sum are out of bounds')
  end
  return {key = totals.key, count = count, sum = sum}
end

local function write_item(totals)
  if totals.count == 0 and totals.sum == 0 then
    redis.call('DEL', totals.key)
  else
    redis.call('HSET', totals.key, 'count', text_of(totals.count), 'sum', text_of(totals.sum))
  end
end

local function write_rating(record, totals)
  redis.call('HSET', ROOT .. 'user:' .. record.user, record.item,
    text_of(record.micros) .. ' ' .. text_of(record.stamp) .. ' ' .. record.region)
  write_item(totals)
end

local function write_tombstone(record)
  redis.call('HSET', ROOT .. 'user:' .. record.user, '',
    text_of(record.stamp) .. ' ' .. record.region)
  redis.call('HSET', SWEEP, record.user, '0')
end

local function read_clock()
  return whole(redis.call('GET', CLOCK) or '0', EXACT, CLOCK)
end

-- A stamp above every one seen here, and above those of the records that it is to win over.
local function make_stamp(...)
  local time = now()
  local stamp = math.max(time, read_clock() + 1)
  for place = 1, select('#', ...) do
    local record = select(place, ...)
    if record then stamp = math.max(stamp, record.stamp + 1) end
  end
  if stamp > time + AHEAD then
    refuse('CLOCK the clock of this server is more than 60 s behind the stamps that it has seen')
  end
  return stamp
end

local function announce(most, record, ...)
  redis.call('XADD', OUTBOX, 'MAXLEN', '~', most, '*', 'user', record.user,
    'item', record.item or '', 'rating', record.micros and text_of(record.micros) or '',
    'stamp', text_of(record.stamp), 'region', record.region, ...)
end

-- KEYS: the user, the item. ARGV: user, item, millionths, region, length of the outbox.
-- Returns the stamp.
local function rate(_, args)
  local record = {
    user = name(args[1], LONGEST, 'user'),
    item = name(args[2], LONGEST, 'item'),
    micros = whole(args[3], HIGHEST, 'rating'),
    region = region(args[4]),
  }
  local most = text_of(whole(args[5], EXACT, 'length of the outbox'))
  local old, tombstone = read_user(record.user, record.item)
  local totals = replaced(read_item(record.item), old, record)
  record.stamp = make_stamp(old, tombstone)
  redis.call('XLEN', OUTBOX)

  redis.call('SET', CLOCK, text_of(record.stamp))
  write_rating(record, totals)
  announce(most, record)
  return text_of(record.stamp)
end

-- KEYS: the user. ARGV: user, region, length of the outbox. Everything that the user has rated
-- so far counts no longer; claw_tend removes it. Returns the stamp.
local function forget(_, args)
  local record = {user = name(args[1], LONGEST, 'user'), region = region(args[2])}
  local most = text_of(whole(args[3], EXACT, 'length of the outbox'))
  local tombstone = tombstone_of(record.user)
  record.stamp = make_stamp(tombstone)
  redis.call('XLEN', OUTBOX)
  redis.call('HLEN', SWEEP)

  redis.call('SET', CLOCK, text_of(record.stamp))
  write_tombstone(record)
  announce(most, record)
  return text_of(record.stamp)
end

-- Applies what is read and checked; returns 1 if it was later than what was here, else 0.
local function apply_rating(record, clock)
  local old, tombstone = read_user(record.user, record.item)
  -- Of two records with one stamp only one can be from a sound region. Some order is needed
  -- all the same, or replicas would differ for good.
  local order = old and compare(record, old) or 1
  if order == 0 then order = record.micros - old.micros end
  if order <= 0 or (tombstone and compare(record, tombstone) <= 0) then return 0 end
  local totals = replaced(read_item(record.item), old, record)

  redis.call('SET', CLOCK, text_of(math.max(clock, record.stamp)))
  write_rating(record, totals)
  return 1
end

local function apply_tombstone(record, clock)
  local tombstone = tombstone_of(record.user)
  if tombstone and compare(record, tombstone) <= 0 then return 0 end
  redis.call('HLEN', SWEEP)

  redis.call('SET', CLOCK, text_of(math.max(clock, record.stamp)))
  write_tombstone(record)
  return 1
end

-- `most`: of a record of this region itself, the length of the outbox. This server has lost it, or
-- it would not come from a peer; and who had not heard it from here yet will be told by nobody
-- else.
local function apply_record(record, most)
  if most then redis.call('XLEN', OUTBOX) end
  local clock = read_clock()
  local apply = record.item == '' and apply_tombstone or apply_rating
  local result = apply(record, clock)
  if most and result == 1 then announce(most, record, 'back', 'yes') end
  return result
end

local function checked(user, item, micros, stamp, from)
  local record = {
    user = name(user, LONGEST, 'user'),
    item = item,
    stamp = whole(stamp, EXACT, 'stamp'),
    region = region(from),
  }
  if item ~= '' then
    name(item, LONGEST, 'item')
    record.micros = whole(micros, HIGHEST, 'rating')
  elseif micros ~= '' then
    refuse('ERR a rating without an item')
  end
  return record
end

-- Applies a record, or parks it until the clock comes near its stamp. Returns 1 if it was applied,
-- 0 if something later was here already, 2 if it is parked.
local function apply_or_park(record, most)
  if record.stamp <= now() + AHEAD then return apply_record(record, most) end
  local micros = record.micros and text_of(record.micros) or ''
  local stamp = text_of(record.stamp)
  local member = cmsgpack.pack({record.user, record.item, micros, stamp, record.region, most})
  if redis.call('ZCARD', PARKED) >= MOST_PARKED and not redis.call('ZSCORE', PARKED, member) then
    refuse('PARKED ' .. MOST_PARKED .. ' records of the future are parked, and no more will be')
  end
  redis.call('ZADD', PARKED, stamp, member)
  return 2
end

-- KEYS: nothing that counts, here and below. ARGV: who wants the lease, and for how many
-- milliseconds; 0 gives it back. Returns whether it is his.
local function lease(_, args)
  local holder = redis.call('GET', LEASE)
  if holder and holder ~= args[1] then return 0 end
  if args[2] ~= '0' then
    redis.call('SET', LEASE, args[1], 'PX', args[2])
    return 1
  end
  redis.call('DEL', LEASE)
  return 0
end

-- Nobody else writes for the region: one who was stopped for a while, and does not know that his
-- time is over, must not move a place back.
local function check_lease(holder)
  if redis.call('GET', LEASE) ~= holder then refuse('LEASE it is held by another one') end
end

-- Changes whenever the server may have lost what it knew: it was restarted, or another one has
-- taken over.
local function run_id()
  return redis.call('INFO', 'server'):match('run_id:(%w+)')
end

-- ARGV: a peer. Returns the run of this server, and the place in the peer's outbox; nothing if
-- it was noted in another run. What that one had heard may be lost, ratings of this region
-- included, and they can only be found by a scan.
local function place(_, args)
  local run = run_id()
  local id, noted = (redis.call('HGET', PLACES, args[1]) or ''):match('^(%S+) (%w+)$')
  return {run, noted == run and id or ''}
end

-- ARGV: holder of the lease, peer, run, the place from which on this was read, the place to
-- which it leads, this region, the length of the outbox, and of each record user, item,
-- millionths, stamp, region. Applies them all, and then moves the place. A scan, which reads from no place, gives no places until its end. Returns how
-- many records were applied, older, parked, and not to be understood.
local function follow(_, args)
  local holder, peer, run, from, to = args[1], args[2], args[3], args[4], args[5]
  local own, most = region(args[6]), text_of(whole(args[7], EXACT, 'length of the outbox'))
  check_lease(holder)
  if run ~= run_id() then refuse('PLACE this is another run of the server') end
  if from ~= '' and redis.call('HGET', PLACES, peer) ~= from .. ' ' .. run then
    refuse('PLACE it is another one than ' .. from)
  end
  local results = {[0] = 0, 0, 0}
  local refused = 0
  for at = 8, #args, 5 do
    local is_sound, record =
      pcall(checked, args[at], args[at + 1], args[at + 2], args[at + 3], args[at + 4])
    if is_sound then
      -- An error ends it all, and the place stays: what was applied so far will be older then.
      local result = apply_or_park(record, record.region == own and most or nil)
      results[result] = results[result] + 1
    else
      refused = refused + 1
    end
  end
  if to ~= '' then redis.call('HSET', PLACES, peer, to .. ' ' .. run) end
  return {results[1], results[0], results[2], refused}
end

-- Takes some of the parked records whose time has come. Returns how many, and what is wrong with
-- one that cannot be applied: it stays, and keeps nothing else from going on.
local function unpark()
  local due = redis.call('ZRANGE', PARKED, '-inf', text_of(now() + AHEAD), 'BYSCORE', 'LIMIT', 0, STEP)
  local done, problem = 0, nil
  for _, member in ipairs(due) do
    local is_applied, result = pcall(function()
      local parked = cmsgpack.unpack(member)
      local record = checked(parked[1], parked[2], parked[3], parked[4], parked[5])
      apply_record(record, parked[6])
    end)
    if is_applied then
      redis.call('ZREM', PARKED, member)
      done = done + 1
    else
      problem = result
    end
  end
  return done, problem
end

-- Removes some of what a user has rated before the tombstone. `from` says how far this has come, and
-- in which run of the server: another has the fields in another order.
local function sweep_user(user, from)
  local cursor = from ~= '0' and from:match('^(%d+) ' .. run_id() .. '$') or '0'
  local key = ROOT .. 'user:' .. user
  local tombstone = tombstone_of(user)
  local found = redis.call('HSCAN', key, cursor, 'COUNT', STEP)
  local fields = found[2]
  for place = 1, #fields, 2 do
    local item = fields[place]
    if item ~= '' then
      local record = read_record(fields[place + 1], key)
      if tombstone and compare(record, tombstone) <= 0 then
        local totals = replaced(read_item(item), record, nil)
        redis.call('HDEL', key, item)
        write_item(totals)
      end
    end
  end
  if found[1] == '0' then
    redis.call('HDEL', SWEEP, user)
  else
    redis.call('HSET', SWEEP, user, found[1] .. ' ' .. run_id())
  end
end

-- KEYS: a user, or nothing. ARGV: that user, or nothing for any. One step of the work that is left.
-- Returns 0 when nothing is left, of that user if one is named.
local function tend(_, args)
  local user = args[1]
  if user then
    local from = redis.call('HGET', SWEEP, user)
    if from then sweep_user(user, from) end
    return redis.call('HEXISTS', SWEEP, user)
  end
  local done, problem = unpark()
  local next = redis.call('HRANDFIELD', SWEEP, 1, 'WITHVALUES')
  if next[1] then
    sweep_user(next[1], next[2])
    return 1
  end
  if problem and done == 0 then error(problem) end
  return done > 0 and 1 or 0
end

-- ARGV: holder of the lease, receiver, the id up to which it has been told of the outbox.
local function told(_, args)
  check_lease(args[1])
  redis.call('HSET', TOLD, args[2], args[3])
  return 1
end

-- ARGV: holder of the lease, the id of a notification that was to be tried again, or nothing, and
-- the fields of one that has failed too often.
local function give_up(_, args)
  check_lease(args[1])
  if redis.call('XLEN', UNDELIVERED) >= MOST_UNDELIVERED then
    refuse('UNDELIVERED ' .. MOST_UNDELIVERED .. ' notifications are parked, and no more will be')
  end
  redis.call('XLEN', AGAIN)

  redis.call('XADD', UNDELIVERED, '*', unpack(args, 3))
  if args[2] ~= '' then redis.call('XDEL', AGAIN, args[2]) end
  return 1
end

-- ARGV: the id of a notification that has failed too often. Has it tried again; returns whether
-- it was there.
local function retry(_, args)
  local found = redis.call('XRANGE', UNDELIVERED, args[1], args[1])[1]
  if not found then return 0 end
  redis.call('XLEN', AGAIN)

  redis.call('XADD', AGAIN, '*', unpack(found[2]))
  redis.call('XDEL', UNDELIVERED, found[1])
  return 1
end

redis.register_function('claw_rate_1', rate)
redis.register_function('claw_forget_1', forget)
redis.register_function('claw_tend_1', tend)
redis.register_function('claw_lease_1', lease)
redis.register_function('claw_place_1', place)
-- Number 1 was not told which region this is.
redis.register_function('claw_follow_2', follow)
redis.register_function('claw_told_1', told)
redis.register_function('claw_give_up_1', give_up)
redis.register_function('claw_retry_1', retry)
