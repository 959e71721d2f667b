// Sends 100 events and prints what was answered.
//
// usage: node try.js URL [TOKEN [ROUTE]]

import { Collector } from './collector.js';

const [url, token, route] = process.argv.slice(2);
const collector = new Collector({ url, token, route, onError: (error) => console.error(error.message) });
for (let number = 0; number < 100; number += 1) {
  collector.add({ userId: `user-${number % 10}`, itemId: `js-${number}`, score: 4.5, latencyMs: 20 + number, status: 200 });
}
await collector.close();
console.log('javascript:', JSON.stringify({ ...collector.counts, ...collector.policy }));
if (collector.counts.accepted !== 100) process.exitCode = 1;
