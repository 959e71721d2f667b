#!lua name=premium_first

-- The state of the greater weight wins: a user who was upgraded in one region is
-- upgraded in all. Of states of the same weight, the one with fewer tokens wins.
--
-- The winner is returned as it came, so nothing is computed and nothing can add
-- up. `available` is what a state holds at the moment of the merge. Two states of
-- the same weight refill at the same rate, so the order of these numbers stays as
-- it is, until both are full.

local function wins(a, b)
  if a.userWeight ~= b.userWeight then
    return a.userWeight > b.userWeight
  end
  if a.available ~= b.available then
    return a.available < b.available
  end
  -- The same now: any fixed order will do.
  return a.timestamp >= b.timestamp
end

local function merge(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  local winner = wins(a, b) and a or b
  return cmsgpack.pack({
    tokens = winner.tokens,
    timestamp = winner.timestamp,
    userWeight = winner.userWeight,
  })
end

redis.register_function({
  function_name = 'premium_first',
  callback = merge,
  flags = { 'no-writes' },
})
