// From the handler's name to the function: CommonJS, ES modules, nested exports.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { Fault } = require('./errors');

// True if the nearest package.json above the file says that .js files are ES modules.
function isModulePackage(folder) {
  for (let at = folder; ; at = path.dirname(at)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(at, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT') return false;
    }
    if (at === path.dirname(at) || path.basename(at) === 'node_modules') return false;
  }
}

async function loadModule(root, name) {
  const file = path.resolve(root, name);
  const exists = (extension) => fs.existsSync(file + extension);
  if (exists('') && fs.statSync(file).isFile()) return require(file);
  if (exists('.js')) return isModulePackage(path.dirname(file)) ? import(pathToFileURL(`${file}.js`)) : require(`${file}.js`);
  if (exists('.mjs')) return import(pathToFileURL(`${file}.mjs`));
  if (exists('.cjs')) return require(`${file}.cjs`);
  return require(require.resolve(name, { paths: [root, path.dirname(file)] }));
}

async function loadHandler(root, handler) {
  if (handler.includes('..')) throw new Fault('Runtime.MalformedHandlerName', `'${handler}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  const match = /^([^.]*)\.(.*)$/.exec(path.basename(handler));
  if (!match) throw new Fault('Runtime.MalformedHandlerName', 'Bad handler');
  const [, module, attribute] = match;

  let loaded;
  try {
    loaded = await loadModule(root, path.join(path.dirname(handler), module));
  } catch (error) {
    if (error instanceof SyntaxError) throw new Fault('Runtime.UserCodeSyntaxError', `${error}`);
    if (['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'].includes(error?.code)) throw new Fault('Runtime.ImportModuleError', `${error}`);
    throw error;
  }
  const pick = (from) => attribute.split('.').reduce((value, key) => value?.[key], from);
  // A CommonJS module that was imported may hold everything in its default export.
  const found = pick(loaded) ?? pick(loaded?.default);
  if (found === undefined || found === null) throw new Fault('Runtime.HandlerNotFound', `${handler} is undefined or not exported`);
  if (typeof found !== 'function') throw new Fault('Runtime.HandlerNotFound', `${handler} is not a function`);
  return found;
}

module.exports = { loadHandler };
