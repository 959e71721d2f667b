// Load for POST /rating with k6, and the sum at its end: what was granted is what the limit
// allows, capacity + refill x time, and not one more.
//
//   k6 run -e URL=http://127.0.0.1:8080 -e CAPACITY=100 -e REFILL=50 deploy/load/rating.js
//
// CAPACITY and REFILL, each second, are those of claw-edge. Before it begins the bucket has to
// be full. rating.py beside this does the same without k6.

import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const url = __ENV.URL || 'http://127.0.0.1:8080';
const capacity = Number(__ENV.CAPACITY || 100);
const refill = Number(__ENV.REFILL || 50);
const granted = new Counter('granted');

export const options = {
  scenarios: {
    ratings: {
      executor: 'ramping-vus',
      startVUs: 1,
      stages: [
        { duration: '10s', target: 50 },
        { duration: '20s', target: 50 },
        { duration: '5s', target: 0 },
      ],
      gracefulRampDown: '5s',
    },
  },
  thresholds: {
    // Of all answers, refusals too.
    http_req_duration: ['p(99)<50'],
    checks: ['rate==1'],
  },
};

// A refusal is an answer like any other.
http.setResponseCallback(http.expectedStatuses(200, 429));

export default function () {
  const rating = { user_id: `user${__VU}`, item_id: `item${__ITER % 100}`, rating: 4 };
  const answer = http.post(`${url}/rating`, JSON.stringify(rating), {
    headers: { 'Content-Type': 'application/json' },
  });
  if (answer.status === 200) granted.add(1);
  check(answer, {
    'granted or refused': (r) => r.status === 200 || r.status === 429,
    'a refusal says when to come back': (r) => r.status !== 429 || Number(r.headers['Retry-After']) > 0,
  });
}

export function handleSummary(data) {
  const seconds = data.state.testRunDurationMs / 1000;
  const count = data.metrics.granted ? data.metrics.granted.values.count : 0;
  const most = capacity + refill * seconds;
  const verdict = count <= most && count >= 0.9 * most ? 'adds up' : 'DOES NOT ADD UP';
  return { stdout: `granted ${count}; ${capacity} + ${refill} x ${seconds.toFixed(1)} s = ${most.toFixed(0)}: ${verdict}\n` };
}
