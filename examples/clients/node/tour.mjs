// What differs from library to library: routing in a cluster, a policy, a state.
//
// usage: node tour.mjs
// The server is REDIS_URL, or redis://127.0.0.1:6379; with CLUSTER set it is a node of a
// cluster.

import { createClient, createCluster, RESP_TYPES } from 'redis';

const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';
const { username, password } = new URL(url);
const cluster = 'CLUSTER' in process.env;
const client = cluster
  ? createCluster({ RESP: 3, rootNodes: [{ url }], defaults: { username, password } })
  : createClient({ RESP: 3, url });
client.on('error', (error) => console.error(error));
await client.connect();

// A cluster is told which key decides and whether a replica may answer.
function send(key, readonly, args, options) {
  return cluster
    ? client.sendCommand(key, readonly, args, options)
    : client.sendCommand(args, options);
}

try {
  let taken = 0;
  for (let n = 0; n < 20; n += 1) {
    const key = `tour:${n}`;
    taken += (await send(key, false, ['CL.TAKE', key, '1', 'CAPACITY', '5', 'REFILL', '0']))[0];
  }
  console.log(`${taken} taken`);

  // An object, with RESP 3; an array of names and values with RESP 2.
  const policy = await send('tour:1', false,
    ['CL.POLICY', 'tour:1', 'CAPACITY', '5', 'REFILL', '2.5']);
  console.log(`${policy.capacity} at most, ${policy.refill} more in a second`);

  // MessagePack: a Buffer, as a string would lose bytes.
  const bytes = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };
  const state = await send('tour:1', true, ['CL.STATE', 'tour:1'], bytes);
  const [changed] = await send('tour:1', false, ['CL.MERGE', 'tour:1', 'STATE', state]);
  console.log(`merged with itself, ${changed} changed`);
} finally {
  client.destroy();
}
