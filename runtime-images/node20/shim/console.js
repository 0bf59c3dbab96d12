// console.* in AWS's form: time, request id, level, message, separated by tabs; or one JSON object a line.
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const util = require('node:util');
const { forLog } = require('./errors');

const current = new AsyncLocalStorage();
// Outside any invocation's own call chain the last one is the best guess, and with one at a time the right one.
let latest = '';

const LEVELS = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60 };

function install() {
  const asJson = (process.env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
  const least = LEVELS[(process.env.AWS_LAMBDA_LOG_LEVEL || 'trace').toLowerCase()] || 10;
  const requestId = () => current.getStore()?.requestId ?? latest;
  const writer = (level, stream) => (...values) => {
    if (LEVELS[level] < least) return;
    const name = level.toUpperCase();
    let line;
    if (asJson) {
      const message = values.length === 1 && !(values[0] instanceof Error) ? values[0] : util.format(...values);
      const entry = { timestamp: new Date().toISOString(), level: name, requestId: requestId() };
      try {
        line = JSON.stringify({ ...entry, message });
      } catch {
        line = JSON.stringify({ ...entry, message: util.format(message) });
      }
    } else {
      line = `${new Date().toISOString()}\t${requestId()}\t${name}\t${util.format(...values)}`;
    }
    stream.write(`${line}\n`);
  };
  for (const [method, level, stream] of [
    ['log', 'info', process.stdout], ['info', 'info', process.stdout], ['debug', 'debug', process.stdout],
    ['trace', 'trace', process.stdout], ['warn', 'warn', process.stderr], ['error', 'error', process.stderr],
  ]) {
    console[method] = writer(level, stream);
  }
  console.fatal = writer('fatal', process.stderr);
}

// Runs `work` as part of invocation `requestId`.
function within(requestId, work) {
  latest = requestId;
  return current.run({ requestId }, work);
}

function logError(what, error) {
  console.error(`${what} Error`, JSON.stringify(forLog(error)));
}

module.exports = { install, within, logError, currentRequest: () => current.getStore()?.requestId };
