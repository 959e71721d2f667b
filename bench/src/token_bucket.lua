-- KEYS[1] bucket, ARGV[1] capacity, ARGV[2] tokens per second
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local stored = redis.call('HMGET', KEYS[1], 'tokens', 'timestamp')
local tokens, timestamp = tonumber(stored[1]), tonumber(stored[2])
if tokens == nil then
  tokens, timestamp = capacity, now
end
tokens = math.min(capacity, tokens + (now - timestamp) * rate / 1000000)

local taken, retry_after = 0, 0
if tokens >= 1 then
  tokens, taken = tokens - 1, 1
else
  retry_after = math.ceil((1 - tokens) * 1000 / rate)
end
local reset_after = math.ceil((capacity - tokens) * 1000 / rate)

redis.call('HSET', KEYS[1], 'tokens', tokens, 'timestamp', now)
redis.call('PEXPIRE', KEYS[1], reset_after + 1000)
return {taken, capacity, math.floor(tokens), retry_after, reset_after}
