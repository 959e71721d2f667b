// Load for k6: ramps to 50 users, and accepts the answers 200 and 429 only.
//
//   k6 run -e URLS=http://127.0.0.1:8080/ demo/load.js
//
// URLS are the services, separated by commas; users are spread over them. All
// users share the API key KEY, so they share one limit. load.py does the same
// without k6.

import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const urls = (__ENV.URLS || 'http://127.0.0.1:8080/').split(',');
const headers = { 'X-Api-Key': __ENV.KEY || 'demo' };
const granted = new Counter('granted');
const refused = new Counter('refused');

http.setResponseCallback(http.expectedStatuses(200, 429));

export const options = {
  stages: [
    { duration: '20s', target: 50 },
    { duration: '30s', target: 50 },
    { duration: '5s', target: 0 },
  ],
  thresholds: {
    checks: ['rate==1.0'],
    http_req_failed: ['rate==0'],
    granted: ['count>0'],
  },
};

export default function () {
  const answer = http.get(urls[__VU % urls.length], { headers });
  check(answer, { 'status is 200 or 429': ({ status }) => status === 200 || status === 429 });
  if (answer.status === 200) {
    granted.add(1);
  } else if (answer.status === 429) {
    refused.add(1);
  }
}
