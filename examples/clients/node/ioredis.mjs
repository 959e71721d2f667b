// What differs from library to library: routing in a cluster, a policy, a state.
//
// usage: node ioredis.mjs
// The server is REDIS_URL, or redis://127.0.0.1:6379; with CLUSTER set it is a node of a
// cluster.

import { createRequire } from 'node:module';

// ioredis sends what it does not know to any node. So it is told of the commands, before it
// is loaded itself: imports would come first.
const require = createRequire(import.meta.url);
const commands = require('@ioredis/commands/built/commands.json');
for (const name of ['take', 'give', 'settle', 'policy', 'takeall', 'merge', 'throttle']) {
  commands[`cl.${name}`] = { arity: -2, flags: ['write'], keyStart: 1, keyStop: 1, step: 1 };
}
for (const name of ['peek', 'policy_ro', 'state']) {
  commands[`cl.${name}`] = { arity: -2, flags: ['readonly'], keyStart: 1, keyStop: 1, step: 1 };
}
const { Redis, Cluster } = require('ioredis');

const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';
const { username, password } = new URL(url);
// Names of keys get the prefix, since it is known which arguments they are.
const keyPrefix = 'tour:';
const client = 'CLUSTER' in process.env
  ? new Cluster([url], { keyPrefix, redisOptions: { username, password } })
  : new Redis(url, { keyPrefix });

try {
  let taken = 0;
  for (let n = 0; n < 20; n += 1) {
    taken += (await client.call('CL.TAKE', n, 1, 'CAPACITY', 5, 'REFILL', 0))[0];
  }
  console.log(`${taken} taken`);

  // An array of names and values.
  const pairs = await client.call('CL.POLICY', 1, 'CAPACITY', 5, 'REFILL', '2.5');
  const policy = {};
  for (let at = 0; at < pairs.length; at += 2) policy[pairs[at]] = pairs[at + 1];
  console.log(`${policy.capacity} at most, ${policy.refill} more in a second`);

  // MessagePack: a Buffer, as a string would lose bytes.
  const state = await client.callBuffer('CL.STATE', 1);
  const [changed] = await client.call('CL.MERGE', 1, 'STATE', state);
  console.log(`merged with itself, ${changed} changed`);
} finally {
  client.disconnect();
}
