// The Node runtime: started before the function is known, so that a cold start has little left to do.
//
// Life: load what functions usually load, wait for /davit/init, become the function, serve until the agent hangs up.
// Started by the agent (DAVIT_RUNTIME_COMMAND).
'use strict';

const http = require('node:http');
const inspector = require('node:inspector');
const Module = require('node:module');
const { RuntimeClient, HttpResponseStream } = require('./client');
const { describe } = require('./errors');
const { invokeOnce, streamifyResponse } = require('./invoke');
const { loadHandler } = require('./loader');
const log = require('./console');

const TASK_ROOT = process.env.LAMBDA_TASK_ROOT || '/var/task';

for (const name of ['assert', 'buffer', 'child_process', 'crypto', 'dns', 'events', 'fs/promises', 'https', 'os', 'path', 'querystring',
  'stream', 'string_decoder', 'timers/promises', 'tls', 'url', 'util', 'zlib', 'async_hooks', 'perf_hooks']) {
  require(`node:${name}`);
}

// The same for every function, so it is there before one is known.
const FIXED = {
  AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs20.x', AWS_LAMBDA_INITIALIZATION_TYPE: 'on-demand', LAMBDA_TASK_ROOT: TASK_ROOT,
  LAMBDA_RUNTIME_DIR: '/var/runtime',
};

// The variables AWS documents; these win over the user's. The rest is only filled in where the user said nothing.
function platformEnvironment(fn) {
  const fixed = {
    _HANDLER: fn.handler || '',
    AWS_LAMBDA_FUNCTION_NAME: fn.function_name,
    AWS_LAMBDA_FUNCTION_VERSION: String(fn.version),
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(fn.memory_mb),
    AWS_LAMBDA_LOG_GROUP_NAME: fn.log_group,
    AWS_LAMBDA_LOG_STREAM_NAME: fn.log_stream,
  };
  for (const name of Object.keys(fn.env || {})) if (name in FIXED) fixed[name] = FIXED[name];
  const region = (fn.arn || '').split(':')[3] || 'us-east-1';
  const usual = {
    TZ: ':UTC', LANG: 'C.UTF-8', AWS_REGION: region, AWS_DEFAULT_REGION: region, AWS_XRAY_CONTEXT_MISSING: 'LOG_ERROR',
    NODE_PATH: `/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:${TASK_ROOT}`,
  };
  for (const [name, value] of Object.entries(usual)) if (!(name in process.env)) fixed[name] = value;
  return fixed;
}

function become(fn) {
  Object.assign(process.env, fn.env || {});
  Object.assign(process.env, platformEnvironment(fn));
  process.chdir(TASK_ROOT);
  Module._initPaths(); // reads NODE_PATH again
  log.install();
  globalThis.awslambda = { streamifyResponse, HttpResponseStream };
}

// What nobody caught ends the process, after it has been reported under its own name.
function reportUncaught(client) {
  const report = (kind) => async (error) => {
    log.logError(kind === 'Runtime.UnhandledPromiseRejection' ? 'Unhandled Promise Rejection' : 'Uncaught Exception', error);
    const document = describe(error);
    if (kind) Object.assign(document, { errorType: kind, errorMessage: error instanceof Error ? `${error}` : document.errorMessage });
    const id = log.currentRequest() ?? latestRequest;
    try {
      // A client of its own: the loop's connection may be in use.
      await new RuntimeClient(`${client.host}:${client.port}`).fail(id, document);
    } finally {
      process.exit(kind ? 128 : 129);
    }
  };
  process.on('uncaughtException', report(''));
  process.on('unhandledRejection', report('Runtime.UnhandledPromiseRejection'));
}
let latestRequest = '';
let debuggerAwaited = false;

// Loads a handler and serves a few events that nobody sent, over a connection to ourselves: code that has run is compiled.
async function rehearse() {
  Object.assign(process.env, FIXED);
  log.install();
  const handler = await loadHandler(__dirname, 'rehearsal.handler');
  delete require.cache[require.resolve('./rehearsal')];
  const fn = { function_name: '', version: '', memory_mb: 0, log_group: '', log_stream: '', arn: '' };
  const event = { 'Content-Type': 'application/json', 'Lambda-Runtime-Aws-Request-Id': '', 'Lambda-Runtime-Deadline-Ms': '0' };
  const server = http.createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(200, event).end('{}'));
  });
  await new Promise((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve));
  const client = new RuntimeClient(`127.0.0.1:${server.address().port}`);
  try {
    for (let i = 0; i < 4; i++) await invokeOnce(client, handler, fn, await client.next(), true);
  } finally {
    client.close();
    server.close();
  }
}

// Node's inspector, where the agent connects to it. The function works without it, should it not open.
function openDebugger(debugged) {
  try {
    inspector.open(debugged.port, '127.0.0.1');
  } catch (error) {
    process.stderr.write(`davit: the debugger cannot be opened: ${error.message}\n`);
    return false;
  }
  // A port that is taken is only written about.
  return debugged.wait && inspector.url() !== undefined;
}

async function serve(client, handler, fn, alone) {
  for (;;) {
    let next;
    try {
      next = await client.next();
    } catch {
      process.exit(0); // the agent has gone away
    }
    if (!next.headers['lambda-runtime-aws-request-id']) process.exit(1);
    latestRequest = next.headers['lambda-runtime-aws-request-id'];
    if (debuggerAwaited) {
      debuggerAwaited = false;
      process.stderr.write('davit: the call waits for a debugger\n');
      inspector.waitForDebugger();
    }
    await invokeOnce(client, handler, fn, next, alone);
  }
}

async function main() {
  const address = process.env.AWS_LAMBDA_RUNTIME_API || '127.0.0.1:9001';
  // What goes wrong here would go wrong with a real event, and is told then.
  await rehearse().catch(() => {});
  const client = new RuntimeClient(address);
  let answer;
  try {
    answer = await client.init();
  } catch {
    process.exit(0);
  }
  if (answer.status !== 200) process.exit(1);
  const fn = JSON.parse(answer.body.toString('utf8'));
  become(fn);
  if (fn.debugger) debuggerAwaited = openDebugger(fn.debugger);
  let handler;
  try {
    handler = await loadHandler(TASK_ROOT, fn.handler || '');
  } catch (error) {
    log.logError('Init', error);
    await client.fail('', describe(error)).catch(() => {});
    process.exit(1);
  }
  reportUncaught(client);
  const loops = Math.max(1, Number(fn.concurrency || 1));
  for (let i = 0; i < loops; i++) serve(i === 0 ? client : new RuntimeClient(address), handler, fn, loops === 1);
}

main();
