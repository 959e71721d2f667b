import { limiter } from './limit.js';

/**
 * A plugin for Fastify: `app.register(rateLimit, { send, key, capacity, refill, failOpen })`.
 * @param {import('fastify').FastifyInstance} fastify
 * @param {import('./limit.js').Options} options
 */
export async function rateLimit(fastify, options) {
  const decide = limiter(options);
  fastify.addHook('onRequest', async (request, reply) => {
    const { status, fields } = await decide(request);
    reply.headers(fields);
    if (status !== 200) return reply.code(status).send();
  });
}

// For all routes of the instance that registers it, not only for those within the plugin.
rateLimit[Symbol.for('skip-override')] = true;
