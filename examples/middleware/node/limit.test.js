// node --test: needs a server with the module at REDIS_URL.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import express from 'express';
import Fastify from 'fastify';
import { createClient } from 'redis';
import { rateLimit as forExpress } from './express.js';
import { rateLimit as forFastify } from './fastify.js';

let client;
before(async () => { client = await createClient({ url: process.env.REDIS_URL }).connect(); });
after(() => client.destroy());

const send = (args) => client.sendCommand(args);
const nobody = async () => { throw new Error('nobody answers'); };
const FIELDS = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset', 'retry-after'];

const frameworks = {
  async express(options) {
    const app = express();
    app.use(forExpress(options));
    app.get('/', (request, response) => { response.send('hello'); });
    const server = app.listen(0, '127.0.0.1');
    await new Promise((resolve) => { server.once('listening', resolve); });
    return { port: server.address().port, close: () => server.close() };
  },
  async fastify(options) {
    const app = Fastify();
    app.register(forFastify, options);
    app.get('/', async () => 'hello');
    await app.listen({ port: 0, host: '127.0.0.1' });
    return { port: app.server.address().port, close: () => app.close() };
  },
};

for (const [name, start] of Object.entries(frameworks)) {
  const key = ({ headers }) => headers['x-user'] && `limit:${name}:${headers['x-user']}`;

  // Asks in turn; an answer is its status and those of the fields that it has.
  async function answers(options, users) {
    const service = await start({ send, key, capacity: 2, refill: 0, failOpen: true, ...options });
    try {
      const seen = [];
      for (const user of users) {
        const headers = user ? { 'X-User': user, Connection: 'close' } : { Connection: 'close' };
        const answer = await fetch(`http://127.0.0.1:${service.port}/`, { headers });
        assert.equal(await answer.text(), answer.status === 200 ? 'hello' : '');
        seen.push([answer.status, ...FIELDS.map((field) => answer.headers.get(field))]);
      }
      return seen;
    } finally {
      await service.close();
    }
  }

  test(`${name}: a bucket for each key`, async () => {
    // One token in an hour, so that it does not matter how long this takes.
    const seen = await answers({ refill: 1, intervalMs: 3600000 }, ['ann', 'ann', 'ann', 'bob']);
    const near = (text, about) => text !== null && Number(text) > about - 60 && Number(text) <= about;
    const expected = [
      [200, '2', '1', 3600, null],
      [200, '2', '0', 7200, null],
      [429, '2', '0', 7200, 3600],
      [200, '2', '1', 3600, null],
    ];
    expected.forEach(([status, limit, remaining, reset, retry], at) => {
      assert.deepEqual(seen[at].slice(0, 3), [status, limit, remaining]);
      assert.ok(near(seen[at][3], reset), String(seen[at]));
      assert.ok(retry === null ? seen[at][4] === null : near(seen[at][4], retry), String(seen[at]));
    });
  });

  test(`${name}: what has no key is not limited`, async () => {
    const free = [200, null, null, null, null];
    assert.deepEqual(await answers({}, [null, null, null]), [free, free, free]);
  });

  test(`${name}: what can never be has no time to come back`, async () => {
    assert.deepEqual(await answers({ tokens: 3 }, ['cleo']), [[429, '2', '2', '0', null]]);
  });

  test(`${name}: without Redis it is as said`, async () => {
    const told = [];
    const onError = (error) => told.push(error.message);
    const failing = { send: nobody, onError };
    assert.deepEqual(await answers({ ...failing, failOpen: true }, ['ann']), [[200, null, null, null, null]]);
    assert.deepEqual(await answers({ ...failing, failOpen: false }, ['ann']), [[503, null, null, null, null]]);
    assert.deepEqual(told, ['nobody answers', 'nobody answers']);
    await assert.rejects(start({ send, key, capacity: 2, refill: 0 }), /failOpen/);
  });
}
