// Failures in the shapes AWS's Node runtime reports.
'use strict';

class Fault extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

// The error document for anything that can be thrown.
function describe(error) {
  if (error instanceof Error || (error && typeof error === 'object' && typeof error.message === 'string' && typeof error.stack === 'string')) {
    return {
      errorType: String(error.name || 'Error'),
      errorMessage: String(error.message),
      trace: String(error.stack || '').split('\n'),
    };
  }
  let text;
  try {
    text = typeof error === 'object' && error !== null ? JSON.stringify(error) : String(error);
  } catch {
    text = String(error);
  }
  return { errorType: error === null ? 'null' : typeof error, errorMessage: String(text), trace: [] };
}

// As describe, with the error's own fields, for the log.
function forLog(error) {
  const { errorType, errorMessage, trace } = describe(error);
  const own = error instanceof Error ? { ...error } : {};
  delete own.name;
  return { errorType, errorMessage, ...own, stack: trace };
}

module.exports = { Fault, describe, forLog };
