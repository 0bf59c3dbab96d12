// One invocation: event in, handler of any of the three kinds, answer out.
'use strict';

const { finished } = require('node:stream/promises');
const { Fault, describe } = require('./errors');
const log = require('./console');

const STREAMING = Symbol.for('davit.streaming');

// `awslambda.streamifyResponse`
function streamifyResponse(handler, options) {
  handler[STREAMING] = options || {};
  return handler;
}

function makeContext(fn, headers) {
  const header = (name) => headers[`lambda-runtime-${name}`];
  const parsed = (name) => (header(name) ? JSON.parse(header(name)) : undefined);
  const deadline = Number(header('deadline-ms') || 0);
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: fn.function_name,
    functionVersion: String(fn.version),
    memoryLimitInMB: String(fn.memory_mb),
    logGroupName: fn.log_group,
    logStreamName: fn.log_stream,
    awsRequestId: header('aws-request-id'),
    invokedFunctionArn: header('invoked-function-arn') || fn.arn,
    clientContext: parsed('client-context'),
    identity: parsed('cognito-identity'),
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  };
}

function marshal(result) {
  try {
    return JSON.stringify(result === undefined ? null : result) ?? 'null';
  } catch (error) {
    throw new Fault('Runtime.MarshalError', `Unable to stringify response body: ${error.message}`);
  }
}

// Resolves with the handler's result, however it gives it: by promise, callback or the old context methods.
function callHandler(handler, event, context, alone) {
  return new Promise((resolve, reject) => {
    let settled = false;
    const settle = (how, value) => {
      if (settled) return;
      settled = true;
      process.removeListener('beforeExit', onEmpty);
      how(value);
    };
    let answer = null;
    // Nothing left to wait for: the callback's answer if there was one, otherwise null, as at AWS.
    const onEmpty = () => (answer ? settle(...answer) : settle(resolve, null));
    if (alone) process.once('beforeExit', onEmpty);

    const callback = (error, result) => {
      if (answer || settled) return;
      answer = error !== undefined && error !== null ? [reject, error] : [resolve, result];
      if (!alone || !context.callbackWaitsForEmptyEventLoop || answer[0] === reject) settle(...answer);
    };
    context.done = callback;
    context.succeed = (result) => settle(resolve, result);
    context.fail = (error) => settle(reject, error ?? 'handled');

    try {
      const returned = handler(event, context, callback);
      if (typeof returned?.then === 'function') returned.then((v) => settle(resolve, v), (e) => settle(reject, e));
      // A plain function that just returns its result: AWS would answer null, which helps nobody.
      else if (handler.length < 3 && returned !== undefined) settle(resolve, returned);
    } catch (error) {
      settle(reject, error);
    }
  });
}

async function invokeStreaming(client, handler, event, context, alone) {
  const stream = client.stream(context.awsRequestId);
  const end = () => stream.end();
  if (alone) process.once('beforeExit', end);
  try {
    await handler(event, stream, context);
    if (!stream.writableFinished) await finished(stream);
    await stream.answered;
  } catch (error) {
    log.logError('Invoke', error);
    if (stream.request) await stream.failMidway(describe(error));
    else await client.fail(context.awsRequestId, describe(error));
  } finally {
    process.removeListener('beforeExit', end);
  }
}

// Handles one event as it came from `next`.
async function invokeOnce(client, handler, fn, next, alone) {
  const id = next.headers['lambda-runtime-aws-request-id'];
  await log.within(id, async () => {
    if (next.headers['lambda-runtime-trace-id']) process.env._X_AMZN_TRACE_ID = next.headers['lambda-runtime-trace-id'];
    else delete process.env._X_AMZN_TRACE_ID;
    try {
      const context = makeContext(fn, next.headers);
      let event;
      try {
        event = JSON.parse(next.body.toString('utf8'));
      } catch (error) {
        throw new Fault('Runtime.UnmarshalError', `Unable to parse event: ${error.message}`);
      }
      if (handler[STREAMING]) return await invokeStreaming(client, handler, event, context, alone);
      const body = marshal(await callHandler(handler, event, context, alone));
      const answer = await client.respond(id, body);
      if (answer.status === 413) {
        await client.fail(id, { errorType: 'Function.ResponseSizeTooLarge', errorMessage: 'Response payload size exceeded maximum allowed payload size (6291556 bytes).', trace: [] });
      }
    } catch (error) {
      log.logError('Invoke', error);
      await client.fail(id, describe(error));
    }
  });
}

module.exports = { invokeOnce, streamifyResponse };
