// Takes tokens for one user until it is refused, waits as told, takes again.
//
// usage: node take.mjs [key]
// The server is REDIS_URL, or redis://127.0.0.1:6379.

import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';

// status: 200, or 429 when refused; retryAfterMs: 0 when granted, -1 when it
// can never be.
async function take(client, key, tokens = 1) {
  const [taken, , remaining, retryAfterMs] = await client.sendCommand([
    'CL.TAKE', key, String(tokens), 'CAPACITY', '3', 'REFILL', '1', 'INTERVAL', '2000',
  ]);
  return { status: taken === tokens ? 200 : 429, remaining, retryAfterMs };
}

const client = createClient({ url: process.env.REDIS_URL ?? 'redis://127.0.0.1:6379' });
await client.connect();
try {
  const key = process.argv[2] ?? 'limit:user:42';
  let decision = await take(client, key);
  while (decision.status === 200) {
    console.log(`${decision.status} granted, ${decision.remaining} left`);
    decision = await take(client, key);
  }
  console.log(`${decision.status} refused, retry in ${decision.retryAfterMs} ms`);

  if (decision.retryAfterMs < 0) {
    throw new Error('more tokens than the bucket can hold: waiting would not help');
  }
  // Timers of Node can fire a millisecond early.
  await sleep(decision.retryAfterMs + 1);
  decision = await take(client, key);
  console.log(`${decision.status} after waiting, ${decision.remaining} left`);
} finally {
  client.destroy();
}
