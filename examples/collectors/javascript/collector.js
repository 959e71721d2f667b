// Tells claw-edge how requests were served: rating events, sent in batches.

/**
 * @typedef {object} Event
 * @property {string} userId
 * @property {string} itemId
 * @property {number} score
 * @property {number} [timestamp] milliseconds since 1970: now when left out
 * @property {number} [latencyMs] how long the request took; without it the event tells nothing of overload
 * @property {number} [status] of the HTTP response
 * @property {string} [route] whose policy it concerns
 */

/**
 * @typedef {object} Options
 * @property {string} url of claw-edge, such as http://127.0.0.1:8080
 * @property {string} [token] the bearer token
 * @property {string} [route] of events that name none
 * @property {number} [capacity] most events that wait: 10000 when left out. The oldest makes room
 * @property {number} [everyMs] from one batch to the next: 100 when left out
 * @property {(error: Error) => void} [onError] is told why events were refused or given up
 */

const MOST_LINES = 1000;
// claw-edge knows an event again for a minute; sent later, it could count twice.
const GIVE_UP_MS = 30_000;
const FIRST_BACK_OFF_MS = 100;
const MOST_BACK_OFF_MS = 5_000;
const ANSWER_MS = 5_000;

export class Collector {
  /** What became of events. `dropped` are those that had no room or were given up. */
  counts = { accepted: 0, duplicates: 0, refused: 0, dropped: 0, retries: 0 };
  /** The latest policy that claw-edge answered with, or undefined: `{bucketSize, refillRate}`. */
  policy = undefined;

  #options;
  #waiting = [];
  #sending = undefined;
  #timer;

  /** @param {Options} options */
  constructor(options) {
    this.#options = { capacity: 10_000, everyMs: 100, ...options };
    this.#timer = setInterval(() => void this.flush(), this.#options.everyMs);
    // A program ends when all else is done; who wants the last events calls close().
    this.#timer.unref();
  }

  /** Queues an event. It never waits for the network. @param {Event} event */
  add(event) {
    const { route, capacity } = this.#options;
    if (this.#waiting.length >= capacity) {
      this.#waiting.shift();
      this.counts.dropped += 1;
    }
    this.#waiting.push({ timestamp: Date.now(), route, ...event });
  }

  /**
   * A handler of node:http that does the same as `handler`, and adds an event for each request.
   *
   * @param {(request, response) => any} handler
   * @param {(request, response) => Event | undefined} describe who rated what; undefined for no event
   */
  timed(handler, describe) {
    return (request, response) => {
      const begun = performance.now();
      response.once('close', () => {
        const event = describe(request, response);
        if (event === undefined) return;
        // 499: the caller went away before the answer, which tells of overload too.
        const status = response.writableFinished ? response.statusCode : 499;
        this.add({ ...event, latencyMs: performance.now() - begun, status });
      });
      return handler(request, response);
    };
  }

  /** Sends all that waits, one batch after another. */
  flush() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  /** Sends the rest, and ends: at once as a rule, after half a minute for each batch that finds nobody. */
  async close() {
    clearInterval(this.#timer);
    // What is being sent may have been begun before the last event came.
    await this.flush();
    await this.flush();
  }

  async #sendAll() {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MOST_LINES);
      try {
        await this.#send(batch);
      } catch (error) {
        this.counts.dropped += batch.length;
        this.#options.onError?.(new Error(`${batch.length} events dropped: ${error.message}`));
      }
    }
  }

  async #send(batch) {
    const body = batch.map((event) => `${JSON.stringify(event)}\n`).join('');
    const deadline = Date.now() + GIVE_UP_MS;
    for (let backOffMs = FIRST_BACK_OFF_MS; ; backOffMs = Math.min(2 * backOffMs, MOST_BACK_OFF_MS)) {
      const { why, retryAfterMs } = await this.#attempt(body);
      if (why === undefined) return;
      // Not all at once: collectors that were refused together do not come back together.
      const waitMs = Math.max(retryAfterMs, backOffMs * (0.5 + Math.random()));
      if (Date.now() + waitMs > deadline) throw new Error(why);
      this.counts.retries += 1;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  /** Tries once. When it is worth trying again, says why it failed; throws when it is not. */
  async #attempt(body) {
    const { url, token } = this.#options;
    let response, text;
    try {
      response = await fetch(new URL('/api/v1/event', url), {
        method: 'POST',
        headers: {
          'Content-Type': 'application/x-ndjson',
          ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
        },
        body,
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      text = await response.text();
    } catch (error) {
      return { why: String(error.cause ?? error), retryAfterMs: 0 };
    }
    const why = `${response.status} ${text.slice(0, 200)}`;
    if (response.status === 429 || response.status === 503) {
      return { why, retryAfterMs: 1000 * (Number(response.headers.get('Retry-After')) || 0) };
    }
    if (response.status !== 200) throw new Error(why);
    const { accepted, duplicates, refused, errors, ...policy } = JSON.parse(text);
    this.counts.accepted += accepted;
    this.counts.duplicates += duplicates;
    this.counts.refused += refused;
    // A batch of which no line could be read concerns no route.
    if (policy.bucketSize !== undefined) this.policy = policy;
    for (const { line, detail } of errors) this.#options.onError?.(new Error(`line ${line}: ${detail}`));
    return {};
  }
}
