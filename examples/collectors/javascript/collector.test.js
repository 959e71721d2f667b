import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { afterEach, test } from 'node:test';
import { Collector } from './collector.js';

const POLICY = { bucketSize: 40, refillRate: 400 };
const closing = [];

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function listening(handler) {
  const server = createServer(handler).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** Stands in for claw-edge: `answers` first, then each event is accepted. */
async function standIn(...answers) {
  const requests = [];
  const url = await listening(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    const events = body.trimEnd().split('\n').map((line) => JSON.parse(line));
    const { authorization, 'content-type': type } = request.headers;
    requests.push({ at: performance.now(), asked: [request.method, request.url, authorization, type].join(' '), events });
    const answer = answers.shift() ?? [200, {}];
    if (answer === 'hang up') return void response.destroy();
    const [status, change, fields] = answer;
    const whole = { accepted: events.length, duplicates: 0, refused: 0, errors: [], ...POLICY, ...change };
    response.writeHead(status, fields).end(JSON.stringify(whole));
  });
  return { url, requests };
}

function started(url, options) {
  const errors = [];
  const collector = new Collector({ url, token: 'secret', onError: (error) => errors.push(error.message), ...options });
  return { collector, errors };
}

const event = (number) => ({ userId: 'ann', itemId: `item-${number}`, score: 4.5, timestamp: 1_790_000_000_000 + number });

function fill(collector, count) {
  for (let number = 0; number < count; number += 1) collector.add(event(number));
}

test('events go in batches of a thousand', async () => {
  const { url, requests } = await standIn();
  const { collector, errors } = started(url, { route: 'shop' });
  fill(collector, 2_500);
  await collector.close();
  assert.deepEqual(requests.map(({ events }) => events.length), [1_000, 1_000, 500]);
  for (const { asked } of requests) assert.equal(asked, 'POST /api/v1/event Bearer secret application/x-ndjson');
  assert.deepEqual(requests[2].events[499], { ...event(2_499), route: 'shop' });
  assert.deepEqual(collector.counts, { accepted: 2_500, duplicates: 0, refused: 0, dropped: 0, retries: 0 });
  assert.deepEqual([collector.policy, errors], [POLICY, []]);
});

test('batches go by themselves', async () => {
  const { url } = await standIn();
  const { collector } = started(url);
  closing.push(() => collector.close());
  fill(collector, 3);
  const deadline = performance.now() + 10_000;
  while (collector.counts.accepted < 3 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(collector.counts.accepted, 3);
});

test('who is refused or finds nobody comes again', async () => {
  const { url, requests } = await standIn([429, {}, { 'Retry-After': '1' }], [503, {}], 'hang up');
  const { collector, errors } = started(url);
  fill(collector, 2);
  await collector.close();
  assert.equal(requests.length, 4);
  for (const { events } of requests) assert.deepEqual(events, requests[0].events);
  assert.ok(requests[1].at - requests[0].at >= 999, 'Retry-After is kept');
  assert.deepEqual([collector.counts.accepted, collector.counts.retries, errors], [2, 3, []]);
});

test('the oldest makes room', async () => {
  const { url, requests } = await standIn();
  const { collector } = started(url, { capacity: 10 });
  fill(collector, 25);
  await collector.close();
  assert.deepEqual(requests[0].events, Array.from({ length: 10 }, (_, number) => event(15 + number)));
  assert.deepEqual([collector.counts.accepted, collector.counts.dropped], [10, 15]);
});

test('what is refused is counted and told', async () => {
  const errors = [{ line: 2, detail: 'the score must be a number' }];
  const unread = { accepted: 0, refused: 2, errors, bucketSize: undefined, refillRate: undefined };
  const { url } = await standIn([400, {}], [200, { accepted: 0, duplicates: 1, refused: 1, errors }], [200, unread]);
  const { collector, errors: told } = started(url);
  fill(collector, 3);
  await collector.flush();
  fill(collector, 2);
  await collector.flush();
  assert.deepEqual(collector.counts, { accepted: 0, duplicates: 1, refused: 1, dropped: 3, retries: 0 });
  fill(collector, 2);
  await collector.close();
  assert.deepEqual([collector.counts.refused, collector.policy], [3, POLICY]);
  assert.match(told[0], /^3 events dropped: 400 /);
  assert.equal(told[1], 'line 2: the score must be a number');
});

test('a handler is timed', async () => {
  const { url, requests } = await standIn();
  const { collector } = started(url);
  let reached = () => {};
  const handler = (request, response) => {
    if (request.url === '/never') return reached();
    const status = request.url === '/none' ? 404 : 200;
    setTimeout(() => response.writeHead(status).end(), 50);
  };
  const describe = (request) =>
    request.url === '/health' ? undefined : { userId: 'ann', itemId: request.url, score: 1, route: 'shop' };
  const service = await listening(collector.timed(handler, describe));
  for (const path of ['/tea', '/none', '/health']) await (await fetch(service + path)).text();
  const leaving = new AbortController();
  const left = new Promise((resolve) => {
    reached = resolve;
  });
  const gone = assert.rejects(fetch(`${service}/never`, { signal: leaving.signal }));
  await left;
  leaving.abort();
  await gone;
  const deadline = performance.now() + 10_000;
  while (requests.flatMap(({ events }) => events).length < 3 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await collector.close();
  const events = requests.flatMap((request) => request.events);
  assert.deepEqual(
    events.map(({ itemId, status, route }) => [itemId, status, route]),
    [['/tea', 200, 'shop'], ['/none', 404, 'shop'], ['/never', 499, 'shop']],
  );
  for (const { latencyMs } of events.slice(0, 2)) assert.ok(latencyMs >= 49 && latencyMs < 10_000, String(latencyMs));
});
