// The Lambda Runtime API over one kept-alive connection. Each polling loop has a client of its own.
'use strict';

const http = require('node:http');
const { Writable } = require('node:stream');

const BASE = '/2018-06-01/runtime';

class RuntimeClient {
  constructor(address) {
    const at = address.lastIndexOf(':');
    this.host = address.slice(0, at) || '127.0.0.1';
    this.port = Number(address.slice(at + 1));
    // One socket: the agent sees the answer before it sees the next poll. Idle sockets do not keep Node alive.
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1, keepAliveMsecs: 60_000, noDelay: true });
  }

  request(method, path, headers = {}) {
    return http.request({ host: this.host, port: this.port, agent: this.agent, method, path, headers });
  }

  call(method, path, body, headers = {}) {
    return new Promise((resolve, reject) => {
      const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
      const request = this.request(method, path, { ...headers, ...length });
      request.on('error', reject);
      request.on('response', (response) => collect(response).then(resolve, reject));
      request.end(body);
    });
  }

  close() {
    this.agent.destroy();
  }

  init() {
    return this.call('GET', '/davit/init');
  }

  next() {
    return this.call('GET', `${BASE}/invocation/next`);
  }

  respond(id, body) {
    return this.call('POST', `${BASE}/invocation/${id}/response`, body, { 'Content-Type': 'application/json' });
  }

  fail(id, document) {
    const path = id ? `${BASE}/invocation/${id}/error` : `${BASE}/init/error`;
    return this.call('POST', path, JSON.stringify(document), {
      'Content-Type': 'application/json',
      'Lambda-Runtime-Function-Error-Type': headerValue(document.errorType),
    });
  }

  stream(id) {
    return new ResponseStream(this, `${BASE}/invocation/${id}/response`);
  }
}

function headerValue(text) {
  return /^(Runtime|Function)\.[A-Za-z]+$/.test(text) ? text : 'Unhandled';
}

function collect(response) {
  return new Promise((resolve, reject) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
    response.on('error', reject);
    response.on('aborted', () => reject(new Error('the agent hung up')));
  });
}

// What a streaming handler writes to. The request starts with the first byte, so that the content type can be set before.
class ResponseStream extends Writable {
  constructor(client, path) {
    super({ highWaterMark: 65_536 });
    this.client = client;
    this.path = path;
    this.contentType = 'application/octet-stream';
    this.request = null;
    this.failure = null;
    this.answered = new Promise((resolve) => (this.settle = resolve));
    // A failed upload is seen by whoever awaits `answered`; the handler need not listen.
    this.on('error', () => {});
  }

  setContentType(type) {
    this.contentType = type;
  }

  _start() {
    if (this.request) return;
    this.request = this.client.request('POST', this.path, {
      'Content-Type': this.contentType,
      'Transfer-Encoding': 'chunked',
      'Lambda-Runtime-Function-Response-Mode': 'streaming',
      Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
    });
    this.request.on('error', (error) => {
      this.settle({ error });
      this.destroy(error);
    });
    this.request.on('response', (response) => collect(response).then((answer) => this.settle(answer), (error) => this.settle({ error })));
  }

  _write(chunk, encoding, done) {
    this._start();
    if (this.onFirstByte) {
      const prelude = this.onFirstByte();
      this.onFirstByte = null;
      this.request.write(prelude);
    }
    this.request.write(chunk, encoding, done);
  }

  _final(done) {
    this._start();
    if (this.onFirstByte) {
      this.request.write(this.onFirstByte());
      this.onFirstByte = null;
    }
    this._finish(done);
  }

  _finish(done) {
    if (this.failure) {
      this.request.addTrailers({
        'Lambda-Runtime-Function-Error-Type': 'Error',
        'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(this.failure)).toString('base64'),
      });
    }
    this.request.end(done);
  }

  // Ends a started stream with the error in its trailers, as AWS's client does, after what the handler has written.
  failMidway(document) {
    this.failure = document;
    // `pipeline` destroys its target when its source fails; the request is still good then.
    if (this.destroyed) this._finish();
    else this.end();
    return this.answered;
  }
}

// `awslambda.HttpResponseStream`: status and headers as a prelude before the body.
const HttpResponseStream = {
  from(stream, prelude) {
    stream.setContentType('application/vnd.awslambda.http-integration-response');
    stream.onFirstByte = () => Buffer.concat([Buffer.from(JSON.stringify(prelude)), Buffer.alloc(8)]);
    return stream;
  },
};

module.exports = { RuntimeClient, HttpResponseStream };
