-- For redis_exporter's --script: the numbers of INFO claw, as name and value in turn.
local values = {}
for name, value in redis.call('INFO', 'claw'):gmatch('(claw_[%w_]+):(%d+)\r\n') do
  values[#values + 1] = name
  values[#values + 1] = value
end
return values
