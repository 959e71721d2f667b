import { limiter } from './limit.js';

/**
 * Middleware for Express: `app.use(rateLimit({ send, key, capacity, refill, failOpen }))`.
 * @param {import('./limit.js').Options} options
 */
export function rateLimit(options) {
  const decide = limiter(options);
  return (request, response, next) => {
    decide(request).then(({ status, fields }) => {
      response.set(fields);
      if (status === 200) next();
      else response.status(status).end();
    }).catch(next);
  };
}
