#!lua name=published_weighted

-- The weighted merge in its published form: the fewer tokens, times the greater
-- weight, cut at the capacity, at the moment of the merge.
--
-- Not for production: CL.VERIFY shows that it is not idempotent and not
-- associative. Merging the same state again multiplies again. The built-in
-- strategy `weighted` keeps the laws.

local function merge(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  local weight = math.max(a.userWeight, b.userWeight)
  local tokens = math.min(a.tokens, b.tokens) * weight
  return cmsgpack.pack({
    tokens = math.min(tokens, a.capacity, b.capacity),
    timestamp = a.now,
    userWeight = weight,
  })
end

redis.register_function({
  function_name = 'published_weighted',
  callback = merge,
  flags = { 'no-writes' },
})
