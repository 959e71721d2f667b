-- One instance reports what it has counted, asks for the lease of the route, and is told how things
-- stand. KEYS[1]: the route's hash. ARGV: this instance; milliseconds of a lease; milliseconds for
-- which a report counts; milliseconds for which one is kept; the report; then pairs of another
-- instance and what it has to be told.
local key, me, lease, fresh, kept = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, till = string.match(redis.call('HGET', key, 'leader') or '', '^(%S+) (%d+)$')
till = tonumber(till) or 0
-- One that ends later than any lease does was taken before the clock was set back.
local leads = holder == me or till <= now or till > now + lease
if leads then redis.call('HSET', key, 'leader', me .. ' ' .. now + lease) end
redis.call('HSET', key, 'report:' .. me, now .. ' ' .. ARGV[5])
for place = 6, #ARGV, 2 do
  -- One that has gone, or never was here, asks for nothing.
  if redis.call('HEXISTS', key, 'report:' .. ARGV[place]) == 1 then
    local field = 'done:' .. ARGV[place]
    local before = redis.call('HGET', key, field) or ''
    if #before < 65536 then redis.call('HSET', key, field, before .. ARGV[place + 1]) end
  end
end
local done = redis.call('HGET', key, 'done:' .. me)
if done then redis.call('HDEL', key, 'done:' .. me) end
local switch = redis.call('HGET', key, 'switch')
-- Somebody's word is kept until he takes it back; all else is of no use to anybody tomorrow.
if switch then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, 86400000) end
local reply = {leads and 1 or 0, now, switch or '', redis.call('HGET', key, 'decision') or '', redis.call('HGET', key, 'trial') or '', done or ''}
if leads then
  local fields = redis.call('HGETALL', key)
  for place = 1, #fields, 2 do
    local who = string.match(fields[place], '^report:(%S+)$')
    if who then
      local at, report = string.match(fields[place + 1], '^(%d+) (.*)$')
      local age = math.abs(now - (tonumber(at) or 0))
      if age > kept then
        redis.call('HDEL', key, fields[place], 'done:' .. who)
      elseif age <= fresh then
        reply[#reply + 1] = who
        reply[#reply + 1] = report
      end
    end
  end
end
return reply
