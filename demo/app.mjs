// An HTTP service whose requests are limited by CL.TAKE: one token each.
//
// GET / answers 200, or 429 and when to come back. The limit is that of the API
// key in the header X-Api-Key, or of the caller's address. GET /health answers 200
// for as long as the service runs. See README.md for the environment.

import http from 'node:http';
import { createClient } from 'redis';

const {
  HOST = '127.0.0.1',
  PORT = '8080',
  REDIS_URL = 'redis://127.0.0.1:6379',
  LIMIT_CAPACITY = '100',
  LIMIT_REFILL = '10',
  LIMIT_INTERVAL_MS = '1000',
  REDIS_TIMEOUT_MS = '500', // without an answer in this time, Redis counts as down
  FAIL = 'open', // what callers get then: "open" lets them in, "closed" answers 503
} = process.env;
const POLICY = [
  'CAPACITY', LIMIT_CAPACITY, 'REFILL', LIMIT_REFILL, 'INTERVAL', LIMIT_INTERVAL_MS,
];
const TIMEOUT_MS = Number(REDIS_TIMEOUT_MS);
const MAX_KEY = 128; // bytes of an API key
const MAX_WAITING = 10_000; // takes without an answer: with more, Redis counts as down

if (FAIL !== 'open' && FAIL !== 'closed') {
  throw new Error('FAIL is open or closed');
}

function connect() {
  const client = createClient({
    url: REDIS_URL,
    // Without a connection, say so at once rather than wait for one.
    disableOfflineQueue: true,
    commandsQueueMaxLength: MAX_WAITING,
    socket: {
      connectTimeout: TIMEOUT_MS,
      reconnectStrategy: (retries) => Math.min(1000, 50 * 2 ** Math.min(retries, 5)),
    },
  });
  client.on('error', (error) => console.error(`Redis: ${error.message || error.code}`));
  // It goes on trying; meanwhile requests are answered as FAIL says.
  client.connect().catch(() => {});
  return client;
}

let client = connect();

// The answer to a command, or an error when it takes too long. It may have been
// carried out nevertheless, and is not sent again.
async function ask(command) {
  const asked = client;
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error('timeout'));
      // A Redis that hangs would carry out all that waits once it goes on, and
      // charge callers who have long been answered: so the connection ends here.
      // No option of the client does that for commands that were sent.
      if (asked === client) {
        client = connect();
        asked.destroy();
      }
    }, TIMEOUT_MS);
  });
  try {
    return await Promise.race([asked.sendCommand(command), late]);
  } finally {
    clearTimeout(timer);
  }
}

// Rounded up, for who comes a moment early is refused again.
const seconds = (milliseconds) => String(Math.ceil(milliseconds / 1000));

// Whether the last take failed: a change is logged, not every request.
let down = false;

// The status of a request, and the headers that say why.
async function decide(key) {
  let answer;
  try {
    answer = await ask(['CL.TAKE', `limit:${key}`, '1', ...POLICY]);
  } catch (error) {
    if (!down) {
      down = true;
      console.error(`no answer from Redis, fail ${FAIL}: ${error.message || error.code}`);
    }
    return FAIL === 'open' ? [200, {}] : [503, { 'Retry-After': '1' }];
  }
  if (down) {
    down = false;
    console.log('Redis answers again');
  }
  const [taken, capacity, remaining, retryAfter, resetAfter] = answer;
  const headers = { 'RateLimit-Limit': String(capacity), 'RateLimit-Remaining': String(remaining) };
  if (resetAfter >= 0) { // -1: never full again
    headers['RateLimit-Reset'] = seconds(resetAfter);
  }
  if (taken) {
    return [200, headers];
  }
  if (retryAfter >= 0) {
    headers['Retry-After'] = seconds(retryAfter);
  }
  return [429, headers];
}

async function route(request) {
  if (request.method !== 'GET') {
    return [405, { Allow: 'GET' }];
  }
  if (request.url === '/health') {
    return [200, {}];
  }
  if (request.url !== '/') {
    return [404, {}];
  }
  // A caller that has left has no address any more.
  const key = request.headers['x-api-key'] ?? request.socket.remoteAddress ?? '';
  if (key.length === 0 || Buffer.byteLength(key) > MAX_KEY) {
    return [400, {}];
  }
  return decide(key);
}

const server = http.createServer(async (request, response) => {
  let [status, headers] = [500, {}];
  try {
    [status, headers] = await route(request);
  } catch (error) { // nobody else would catch it, and the process would end
    console.error(error);
  }
  const body = `${JSON.stringify({ status })}\n`;
  response.writeHead(status, {
    ...headers,
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
});
server.keepAliveTimeout = 30_000;

// As the first process of a container it gets no default for signals.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.close();
    server.closeIdleConnections();
    client.destroy();
  });
}

server.listen(Number(PORT), HOST, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});
