// Server-sent events from a handler: each leaves when it is written, and the browser's EventSource shows it at once.
import { setTimeout as sleep } from 'node:timers/promises';

const STEPS = ['fetching', 'sorting', 'drawing', 'done'];

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const pause = Math.min(Number(event.queryStringParameters?.pause_ms ?? 500) || 0, 5000);
  const out = awslambda.HttpResponseStream.from(stream, {
    statusCode: 200,
    headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
  });
  for (const [n, step] of STEPS.entries()) {
    out.write(`id: ${n}\nevent: progress\ndata: ${JSON.stringify({ step, of: STEPS.length })}\n\n`);
    if (step !== 'done') await sleep(pause);
  }
  out.end();
});
