// What the runtime loads and calls before it knows its function; see `rehearse` in index.js.
'use strict';

exports.handler = async (event) => event;
