// The Node shim on a real interpreter against a small Runtime API: kinds of handlers, error shapes, context, streams.
'use strict';

const assert = require('node:assert/strict');
const net = require('node:net');
const { test } = require('node:test');
const { start, ID } = require('./runtime-api');

const index = (text) => ({ 'index.js': text });

async function withShim(files, options, story) {
  const shim = await start(files, options);
  try {
    await story(shim);
  } finally {
    await shim.finish();
  }
}

async function initError(files, handler) {
  const shim = await start(files, { handler });
  const answer = await shim.answer();
  assert.equal(answer.kind, 'init/error');
  assert.equal(await shim.exited, 1);
  await shim.finish();
  return answer.json;
}

test('an async handler answers, and the same process serves the next event', async () => {
  const code = 'let calls = 0; exports.handler = async (event) => ({ event, calls: ++calls, pid: process.pid });';
  const shim = await start(index(code));
  const first = await shim.call({ a: [1, null, 'ü'] });
  assert.deepEqual([first.kind, first.id, first.json.event], ['response', ID, { a: [1, null, 'ü'] }]);
  const second = await shim.call({});
  assert.deepEqual([second.json.calls, second.json.pid], [2, first.json.pid]);
  assert.equal((await shim.finish()).code, 0, 'the agent hanging up is a normal end');
});

test('the inspector listens where it is asked for, and a function works without it', async () => {
  const code = "exports.handler = async () => require('node:inspector').url() ?? null;";
  const free = await new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
  await withShim(index(code), { debugger: { port: free, wait: false } }, async (shim) => {
    const url = (await shim.call({})).json;
    assert.ok(url.startsWith(`ws://127.0.0.1:${free}/`), url);
    const [target] = await (await fetch(`http://127.0.0.1:${free}/json/list`)).json();
    assert.equal(target.webSocketDebuggerUrl, url);
  });
  const taken = await new Promise((resolve) => { const server = net.createServer().listen(0, '127.0.0.1', () => resolve(server)); });
  const port = taken.address().port;
  await withShim(index(code), { debugger: { port, wait: true } }, async (shim) => assert.equal((await shim.call({})).json, null));
  taken.close();
  await withShim(index(code), {}, async (shim) => assert.equal((await shim.call({})).json, null));
});

test('ES modules by extension and by package.json, nested exports, folders', async () => {
  await withShim({ 'index.mjs': 'export const handler = async () => "mjs";' }, {}, async (shim) => assert.equal((await shim.call({})).json, 'mjs'));
  const files = { 'package.json': '{"type":"module"}', 'src/app.js': 'await 0; export const api = { run: async () => import.meta.url };' };
  await withShim(files, { handler: 'src/app.api.run' }, async (shim) => assert.match((await shim.call({})).json, /src\/app\.js$/));
});

test('a callback answers, after the event loop is empty unless told otherwise', async () => {
  const code = `let late = 'no';
    exports.handler = (event, context, callback) => {
      context.callbackWaitsForEmptyEventLoop = event.wait;
      setTimeout(() => { late = 'yes'; }, 150);
      callback(event.fail ? new TypeError('bad') : null, { late: () => late, toJSON() { return late; } });
    };`;
  await withShim(index(code), {}, async (shim) => {
    assert.equal((await shim.call({ wait: false })).json, 'no');
    assert.equal((await shim.call({ wait: true })).json, 'yes');
    const error = await shim.call({ fail: true, wait: false });
    assert.deepEqual([error.kind, error.json.errorType, error.json.errorMessage], ['error', 'TypeError', 'bad']);
  });
});

test('a handler that never answers gives null once nothing is left to wait for', async () => {
  await withShim(index('exports.handler = () => new Promise(() => {});'), {}, async (shim) => {
    assert.equal((await shim.call({})).json, null);
    assert.equal((await shim.call({})).json, null);
  });
});

test('errors have AWS\'s shape', async () => {
  const code = `exports.handler = async (event) => {
    if (event === 'error') throw Object.assign(new RangeError('boom!'), { code: 7 });
    if (event === 'text') throw 'just text';
    if (event === 'marshal') { const a = {}; a.a = a; return a; }
    return 'fine';
  };`;
  const shim = await start(index(code));
  const error = await shim.call('error');
  assert.deepEqual(Object.keys(error.json), ['errorType', 'errorMessage', 'trace']);
  assert.deepEqual([error.json.errorType, error.json.errorMessage, error.json.trace[0]], ['RangeError', 'boom!', 'RangeError: boom!']);
  assert.deepEqual((await shim.call('text')).json, { errorType: 'string', errorMessage: 'just text', trace: [] });
  assert.equal((await shim.call('marshal')).json.errorType, 'Runtime.MarshalError');
  assert.equal((await shim.call(null, { raw: '{' })).json.errorType, 'Runtime.UnmarshalError');
  assert.equal((await shim.call('fine')).json, 'fine');
  assert.match((await shim.finish()).output, new RegExp(`\\t${ID}\\tERROR\\tInvoke Error {"errorType":"RangeError"`));
});

test('every way not to load has its name', async () => {
  assert.equal((await initError({})).errorType, 'Runtime.ImportModuleError');
  const missing = await initError(index("require('nothing-here')"));
  assert.equal(missing.errorType, 'Runtime.ImportModuleError');
  assert.match(missing.errorMessage, /^Error: Cannot find module 'nothing-here'/);
  assert.deepEqual((await initError(index('exports.x = 1'))).errorMessage, 'index.handler is undefined or not exported');
  assert.equal((await initError(index('exports.handler = 1'))).errorType, 'Runtime.HandlerNotFound');
  assert.equal((await initError(index('exports.handler = ('))).errorType, 'Runtime.UserCodeSyntaxError');
  assert.equal((await initError(index(''), 'nodot')).errorType, 'Runtime.MalformedHandlerName');
  assert.equal((await initError(index(''), '../index.handler')).errorType, 'Runtime.MalformedHandlerName');
  const raised = await initError(index("throw new RangeError('no database')"));
  assert.deepEqual([raised.errorType, raised.errorMessage], ['RangeError', 'no database']);
});

test('what nobody caught is reported and ends the process', async () => {
  const code = `exports.handler = (event) => { if (event.reject) Promise.reject(new Error('lost')); else setTimeout(() => { throw new Error('late'); }, 1); return new Promise(() => setTimeout(() => {}, 5000)); };`;
  let shim = await start(index(code));
  const lost = await shim.call({ reject: true });
  assert.deepEqual([lost.kind, lost.json.errorType, lost.json.errorMessage], ['error', 'Runtime.UnhandledPromiseRejection', 'Error: lost']);
  assert.equal(await shim.exited, 128);
  await shim.finish();
  shim = await start(index(code));
  assert.equal((await shim.call({})).json.errorMessage, 'late');
  assert.equal(await shim.exited, 129);
  await shim.finish();
});

test('the context has AWS\'s attributes, the environment the platform\'s', async () => {
  const code = 'exports.handler = async (event, context) => ({ ...context, left: context.getRemainingTimeInMillis(), env: process.env, cwd: process.cwd() });';
  await withShim(index(code), { env: { MINE: 'yes', _HANDLER: 'other' } }, async (shim) => {
    const seen = (await shim.call({}, { headers: { 'Lambda-Runtime-Client-Context': '{"custom":{"a":1}}', 'Lambda-Runtime-Trace-Id': 'Root=1-2-3' } })).json;
    assert.ok(seen.left > 0 && seen.left <= 30_000);
    assert.deepEqual(
      [seen.functionName, seen.functionVersion, seen.memoryLimitInMB, seen.awsRequestId, seen.clientContext, seen.logGroupName],
      ['tested', '7', '256', ID, { custom: { a: 1 } }, '/davit/default/tested'],
    );
    assert.deepEqual([seen.env.MINE, seen.env._HANDLER, seen.env._X_AMZN_TRACE_ID, seen.cwd], ['yes', 'index.handler', 'Root=1-2-3', shim.folder]);
  });
});

test('several invocations are in flight at once, each with its own request id in the log', async () => {
  const code = `let waiting = []; exports.handler = async (event, context) => {
    await new Promise((resolve) => { waiting.push(resolve); if (waiting.length === 3) waiting.forEach((r) => r()); });
    console.log('mine', context.awsRequestId);
    return context.awsRequestId;
  };`;
  const shim = await start(index(code), { concurrency: 3 });
  for (const id of ['a', 'b', 'c']) shim.send({}, { id });
  for (let i = 0; i < 3; i++) {
    const answer = await shim.answer();
    assert.equal(answer.json, answer.id);
  }
  const { output } = await shim.finish();
  for (const id of ['a', 'b', 'c']) assert.match(output, new RegExp(`\\t${id}\\tINFO\\tmine ${id}\n`));
});

test('a streamed answer: prelude, body, and an error in the middle as trailers', async () => {
  const code = `exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
    stream = event.http ? awslambda.HttpResponseStream.from(stream, { statusCode: 418, headers: { x: 'y' } }) : stream;
    if (event.early) throw new Error('early');
    stream.write('one ');
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (event.fail) throw new Error('midway');
    stream.end('two');
  });`;
  await withShim(index(code), {}, async (shim) => {
    const http = await shim.call({ http: true });
    assert.equal(http.headers['lambda-runtime-function-response-mode'], 'streaming');
    assert.equal(http.headers['content-type'], 'application/vnd.awslambda.http-integration-response');
    assert.equal(http.body.toString(), `{"statusCode":418,"headers":{"x":"y"}}${'\0'.repeat(8)}one two`);
    assert.equal((await shim.call({})).body.toString(), 'one two');
    const failed = await shim.call({ fail: true });
    assert.equal(failed.trailers['lambda-runtime-function-error-type'], 'Error');
    assert.equal(JSON.parse(Buffer.from(failed.trailers['lambda-runtime-function-error-body'], 'base64')).errorMessage, 'midway');
    assert.deepEqual([(await shim.call({ early: true })).kind, (await shim.call({})).kind], ['error', 'response']);
  });
});

test('what was written before a failure arrives before it, by a pipeline as well', async () => {
  const code = `const { pipeline } = require('node:stream/promises');
  exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    if (event.pipe) await pipeline((async function* () { yield 'one '; yield 'two'; throw new Error('midway'); })(), stream);
    stream.write('one ');
    stream.write('two');
    throw new Error('midway');
  });`;
  await withShim(index(code), {}, async (shim) => {
    for (const pipe of [false, true]) {
      const failed = await shim.call({ pipe });
      // A pipeline throws away what its target has not taken yet.
      assert.equal(failed.body.toString(), pipe ? 'one ' : 'one two');
      assert.equal(JSON.parse(Buffer.from(failed.trailers['lambda-runtime-function-error-body'], 'base64')).errorMessage, 'midway');
    }
  });
});

test('a stream that nobody reads holds its writer up', async () => {
  const code = `let written = 0;
  exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    const chunk = Buffer.alloc(65536);
    for (let i = 0; i < 400; i++) {
      if (!stream.write(chunk)) await new Promise((resolve) => stream.once('drain', resolve));
      written += chunk.length;
      console.log('written', written);
    }
    stream.end();
  });`;
  const shim = await start(index(code), { slowly: true });
  shim.send({});
  let before;
  do {
    before = shim.printed();
    await new Promise((resolve) => setTimeout(resolve, 300));
  } while (before === '' || before !== shim.printed());
  const written = Number(/written (\d+)\n$/.exec(before)[1]);
  assert.ok(written < 400 * 65536, 'only the buffers of the sockets are filled');
  shim.read();
  assert.equal((await shim.answer()).body.length, 400 * 65536);
  await shim.finish();
});

test('the SDK of the image can be required and imported without being bundled', { skip: !require('node:fs').existsSync('/var/runtime/node_modules') }, async () => {
  const code = `exports.handler = async () => {
    const s3 = require('@aws-sdk/client-s3');
    const { DynamoDBDocumentClient } = await import('@aws-sdk/lib-dynamodb');
    return [typeof s3.S3Client, typeof DynamoDBDocumentClient.from];
  };`;
  await withShim(index(code), {}, async (shim) => assert.deepEqual((await shim.call({})).json, ['function', 'function']));
});
