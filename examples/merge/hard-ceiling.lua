#!lua name=hard_ceiling

-- The fewer tokens win, but no merged bucket holds more than CEILING, whatever
-- its capacity.
--
-- A state merged with itself stays as it is, also above the ceiling. That makes
-- the merge idempotent; cutting always would not be.

local CEILING = 100

local function merge(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  if a.available == b.available and a.userWeight == b.userWeight then
    local later = a.timestamp >= b.timestamp and a or b
    return cmsgpack.pack({
      tokens = later.tokens,
      timestamp = later.timestamp,
      userWeight = later.userWeight,
    })
  end
  return cmsgpack.pack({
    tokens = math.min(a.available, b.available, CEILING),
    timestamp = a.now,
    userWeight = math.max(a.userWeight, b.userWeight),
  })
end

redis.register_function({
  function_name = 'hard_ceiling',
  callback = merge,
  flags = { 'no-writes' },
})
