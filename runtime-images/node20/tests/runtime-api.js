// A small Runtime API and a runner for the shim, for tests: real interpreter, real sockets, scripted events.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');

const SHIM = process.env.DAVIT_SHIM || path.join(__dirname, '..', 'shim', 'index.js');
const API = '/2018-06-01/runtime/';
const ID = '11111111-1111-4111-8111-111111111111';

// A queue whose takers wait.
class Channel {
  constructor() {
    this.items = [];
    this.takers = [];
  }
  put(item) {
    const taker = this.takers.shift();
    if (taker) taker(item);
    else this.items.push(item);
  }
  take() {
    return this.items.length ? Promise.resolve(this.items.shift()) : new Promise((resolve) => this.takers.push(resolve));
  }
}

async function start(files, { handler = 'index.handler', concurrency = 1, env = {}, slowly = false, debugger: debugged } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'davit-node-'));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
  const init = {
    function_name: 'tested', version: 7, namespace: 'default', kind: 'handler', handler, env, memory_mb: 256, timeout_seconds: 30,
    concurrency, arn: 'arn:davit:lambda:local:default:function:tested', log_group: '/davit/default/tested', log_stream: 's',
    debugger: debugged,
  };
  const events = new Channel();
  const answers = new Channel();
  let polls = 0;
  let read;
  const reading = slowly ? new Promise((resolve) => (read = resolve)) : null;

  const server = http.createServer(async (request, response) => {
    const reply = (status, headers, body) => response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(body);
    if (request.url === '/davit/init') return reply(200, {}, JSON.stringify(init));
    if (request.method === 'GET') {
      polls += 1;
      const event = await events.take();
      return reply(200, event.headers, event.body);
    }
    await reading;
    const parts = [];
    for await (const part of request) parts.push(part);
    const [first, id, kind] = request.url.slice(API.length).split('/');
    const body = Buffer.concat(parts);
    answers.put({
      kind: first === 'init' ? 'init/error' : kind, id: first === 'init' ? '' : id, headers: request.headers, trailers: request.trailers,
      body, get json() { return JSON.parse(body.toString()); },
    });
    return reply(202, {}, '{"status":"OK"}');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

  const child = spawn(process.execPath, [SHIM], {
    env: { ...process.env, AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${server.address().port}`, LAMBDA_TASK_ROOT: folder },
  });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  child.stderr.on('data', (part) => (output += part));
  const exited = new Promise((resolve) => child.on('close', resolve));

  const shim = {
    folder, init,
    polls: () => polls,
    send(event, { id = ID, raw, headers = {} } = {}) {
      events.put({
        headers: {
          'Lambda-Runtime-Aws-Request-Id': id, 'Lambda-Runtime-Deadline-Ms': String(Date.now() + 30_000),
          'Lambda-Runtime-Invoked-Function-Arn': init.arn, ...headers,
        },
        body: raw ?? JSON.stringify(event),
      });
    },
    answer: () => answers.take(),
    call(event, how) {
      shim.send(event, how);
      return shim.answer();
    },
    exited,
    // What was printed until now; and answers are read from now on.
    printed: () => output,
    read: () => read(),
    // Hangs up; gives the exit code and everything printed.
    async finish() {
      server.closeAllConnections();
      server.close();
      const code = await exited;
      fs.rmSync(folder, { recursive: true, force: true });
      return { code, output };
    },
  };
  return shim;
}

module.exports = { start, ID };
