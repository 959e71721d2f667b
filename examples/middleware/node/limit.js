// What the two have in common: one CL.TAKE, and what to answer.

/**
 * @typedef {object} Options
 * @property {(args: string[]) => Promise<number[]>} send sends a command: of node-redis
 *   `(args) => client.sendCommand(args)`, of ioredis `(args) => client.call(...args)`
 * @property {(request: object) => string | undefined} key the bucket of a request; undefined
 *   for one that is not limited
 * @property {number} capacity the most tokens of a bucket
 * @property {number} refill tokens that come back in each interval
 * @property {number} [intervalMs] 1000 when left out
 * @property {number} [tokens] what a request costs: 1 when left out
 * @property {boolean} failOpen what to do when Redis gives no answer: true lets requests
 *   through without a limit, false answers 503. How long to wait is the client's affair
 * @property {(error: Error) => void} [onError] is told of it
 */

/**
 * @param {Options} options
 * @returns {(request: object) => Promise<{status: number, fields: object}>} the status is 200
 *   for a request to let through, else what to answer
 */
export function limiter(options) {
  const { send, key, capacity, refill, intervalMs = 1000, tokens = 1, failOpen, onError } = options;
  if (typeof failOpen !== 'boolean') throw new TypeError('failOpen must be true or false');
  const policy = ['CAPACITY', capacity, 'REFILL', refill, 'INTERVAL', intervalMs].map(String);

  return async (request) => {
    const bucket = key(request);
    if (bucket === undefined) return { status: 200, fields: {} };
    let reply;
    try {
      reply = await send(['CL.TAKE', bucket, String(tokens), ...policy]);
    } catch (error) {
      onError?.(error);
      return { status: failOpen ? 200 : 503, fields: {} };
    }
    const [taken, limit, remaining, retryAfter, resetAfter] = reply;
    const fields = { 'RateLimit-Limit': limit, 'RateLimit-Remaining': remaining };
    // -1 is never: a bucket that does not refill.
    if (resetAfter >= 0) fields['RateLimit-Reset'] = seconds(resetAfter);
    if (taken === tokens) return { status: 200, fields };
    // Waiting does not help a request that costs more than the bucket ever holds.
    if (retryAfter >= 0) fields['Retry-After'] = seconds(retryAfter);
    return { status: 429, fields };
  };
}

// Rounded up: whoever waits that long is served.
function seconds(milliseconds) {
  return Math.ceil(milliseconds / 1000);
}
