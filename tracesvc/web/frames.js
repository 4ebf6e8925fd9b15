// The trace format, read from docs/format.md alone: bytes of a stream in, frames and events out.
// Frames are taken uncompressed; a service sends them so when it is asked for `plain=true`.

import { Decoder } from "./msgpack.js";

const MARKER = [0x96, 0xa4, 0x74, 0x73, 0x76, 0x63];
const HEADER_SIZE = 23;
const MAX_FRAME = 524288;
export const KIND = { HEADER: 1, GENERATION: 2, PROCS: 3, STRINGS: 4, STACKS: 5, EVENTS: 6, SNAPSHOT: 7, LOSS: 8, END: 9 };

const CRC = new Uint32Array(256);
for (let n = 0; n < 256; n++) {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  CRC[n] = c >>> 0;
}

function crc(bytes, from, to, value) {
  for (let i = from; i < to; i++) value = CRC[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return value;
}

/** Splits a stream into frames {kind, flags, number, body, offset}; what is no frame comes as {damage, start, end}. */
export class FrameReader {
  constructor(offset = 0) {
    this.held = new Uint8Array(0);
    this.offset = offset;
    this.damaged = -1;
  }

  *push(bytes) {
    const data = this.held.length ? joined(this.held, bytes) : bytes;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    let at = 0;
    for (;;) {
      const found = this.parse(data, view, at);
      if (found === null) break;
      if (found === 0) {  // damage: search on behind the first byte
        if (this.damaged < 0) this.damaged = this.offset + at;
        at = nextMarker(data, at + 1);
        continue;
      }
      if (this.damaged >= 0) {
        yield { damage: true, start: this.damaged, end: this.offset + at };
        this.damaged = -1;
      }
      yield { ...found, offset: this.offset + at };
      at += found.size;
    }
    this.held = data.slice(at);
    this.offset += at;
  }

  /** A frame; 0: there is none; null: more bytes are needed to tell. */
  parse(data, view, at) {
    const left = data.length - at;
    for (let i = 0; i < Math.min(left, MARKER.length); i++) if (data[at + i] !== MARKER[i]) return 0;
    if (left < HEADER_SIZE) return null;
    const kind = data[at + 6], flags = data[at + 7];
    if (kind > 127 || flags > 127 || data[at + 8] !== 0xce || data[at + 13] !== 0xce || data[at + 18] !== 0xc6) return 0;
    const length = view.getUint32(at + 19), size = HEADER_SIZE + length;
    if (size > MAX_FRAME) return 0;
    if (left < size) return null;
    let sum = crc(data, at + 6, at + 13, 0xffffffff);
    sum = crc(data, at + 18, at + size, sum);
    if (((sum ^ 0xffffffff) >>> 0) !== view.getUint32(at + 14)) return 0;
    return { kind, flags, number: view.getUint32(at + 9), size, body: data.subarray(at + HEADER_SIZE, at + size) };
  }
}

function joined(a, b) {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

function nextMarker(data, at) {
  for (; at < data.length; at++) {
    let i = 0;
    while (i < MARKER.length && at + i < data.length && data[at + i] === MARKER[i]) i++;
    if (i === MARKER.length || at + i === data.length) return at;
  }
  return at;
}

/** Follows a stream: keeps its vocabulary and tables, and turns EVENTS frames into batches. */
export class StreamDecoder {
  constructor(offset = 0, vocabulary = null) {
    this.frames = new FrameReader(offset);
    this.vocabulary = new Map();
    if (vocabulary) this.learn(vocabulary);
    this.strings = new Map();
    this.stacks = new Map();
    this.session = null;
    this.began = null;
    this.last = -1;
    this.missing = 0;
  }

  /** Types, and fields at the end of a type, that are not known yet; a field that a writer did not have is empty. */
  learn(rows) {
    for (const [number, name, fields] of rows) {
      const known = this.vocabulary.get(number);
      if (!known || known.fields.length < fields.length) this.vocabulary.set(number, { number, name, fields });
    }
  }

  /** Yields {kind, ...} for every frame whose body says something to a reader. */
  *push(bytes) {
    for (const frame of this.frames.push(bytes)) {
      if (frame.damage) { yield frame; continue; }
      this.missing = this.last < 0 ? 0 : frame.number - this.last - 1;
      this.last = frame.number;
      if (frame.flags) { yield { damage: true, start: frame.offset, end: frame.offset + frame.size, reason: "flags" }; continue; }
      const made = this.frame(frame.kind, new Decoder(frame.body).value());
      if (made) yield { kind: frame.kind, offset: frame.offset, ...made };
    }
  }

  frame(kind, body) {
    // Where a GENERATION may be among what is missing, a name is rather unknown than wrong.
    if (this.missing > 1 || (this.missing === 1 && kind === KIND.PROCS)) { this.strings.clear(); this.stacks.clear(); }
    switch (kind) {
      case KIND.HEADER: {
        const [version, session, source, monotonic, wall, options, events] = body;
        if (version > 1) throw new Error(`a trace of format ${version}; this page reads 1`);
        this.session = session;
        this.began = BigInt(monotonic);
        this.learn(events);
        return { version, session, source, monotonic: this.began, wall: BigInt(wall), options };
      }
      case KIND.GENERATION: {
        this.strings.clear();
        this.stacks.clear();
        return { generation: body[0], monotonic: BigInt(body[1]), wall: BigInt(body[2]) };
      }
      case KIND.PROCS:
        return { procs: body.map(([proc, kind, name, thread, emitted, lost, live]) => ({ proc, kind, name, thread, emitted, lost, live })) };
      case KIND.STRINGS:
        for (const [id, text] of body) this.strings.set(id, text);
        return null;
      case KIND.STACKS:
        for (const [id, rows] of body) this.stacks.set(id, rows);
        return null;
      case KIND.EVENTS:
        return { batch: new Batch(body, this) };
      case KIND.LOSS:
        return { losses: body.map(([proc, first, last, cause, start, end]) => ({ proc, first, last, cause, start: BigInt(start), end: BigInt(end) })) };
      case KIND.END:
        return { monotonic: BigInt(body[0]), wall: BigInt(body[1]), emitted: body[2], lost: body[3] };
      default:
        return null;
    }
  }

  text(id) { return id === 0 ? "" : this.strings.get(id) ?? `?${id}`; }

  stack(id) {
    return (this.stacks.get(id) ?? []).map(([fn, file, line]) => [this.text(fn), this.text(file), line]);
  }
}

/** A batch of events of one proc. Names are resolved while the generation lasts: use it before the next frame. */
export class Batch {
  constructor([proc, first, t0, types, rows, planes, data, running], decoder) {
    Object.assign(this, { proc, first, t0: BigInt(t0), types, count: types.length, decoder });
    this.columns = new Map();
    this.data = new Map((data ?? []).map(([type, ...values]) => [type, values]));
    let at = 0;
    const read = (n, mask, rest) => {
      const values = new Column(planes, at, n, mask, rest);
      at += n * bits(mask);
      return values.array();
    };
    let deltas = null;
    for (const [type, n, ...pairs] of rows) {
      const values = [];
      for (let i = 0; i + 1 < pairs.length; i += 2) values.push(read(n, pairs[i], pairs[i + 1]));
      if (type === 0) deltas = values[0]; else this.columns.set(type, values);
    }
    this.offsets = new Float64Array(this.count);
    let sum = 0;
    for (let i = 0; i < this.count; i++) this.offsets[i] = sum += Number(deltas[i]);
    this.running = running;
  }

  /** Time of the last event. */
  get until() { return this.t0 + BigInt(this.offsets[this.count - 1]); }

  /** The events, as {type, time, proc, seq, ...fields}; stacks are [function, file, line] rows. */
  *events() {
    const { decoder, types } = this;
    const places = new Map();
    const names = new Map([...decoder.vocabulary.values()].map((event) => [event.number, event]));
    let running = this.running;
    for (let i = 0; i < this.count; i++) {
      const number = types[i], k = places.get(number) ?? 0;
      places.set(number, k + 1);
      const known = names.get(number);
      const event = { type: known ? known.name : `type ${number}`, time: this.t0 + BigInt(this.offsets[i]), proc: this.proc, seq: this.first + i };
      const columns = this.columns.get(number) ?? [], data = this.data.get(number) ?? [];
      let c = 0, d = 0;
      for (const [field, storage] of known ? known.fields : []) {
        if (storage === "data") { event[field] = data[d] ? data[d][k] : null; d++; continue; }
        const column = columns[c++];
        const value = column ? column[k] : 0;
        event[field] = storage === "float" ? asDouble(column, k) : storage === "string" ? decoder.text(Number(value))
          : storage === "stack" ? decoder.stack(Number(value)) : value;
      }
      // The task of what ends a step is left out where it is the one that began it.
      if (this.running !== null && this.running !== undefined) {
        if (event.type === "step_start") running = event.task;
        else if (event.type === "step_yield" || event.type === "step_block" || event.type === "task_exit") event.task = running;
      }
      yield event;
    }
  }
}

function asDouble(column, k) {
  if (!column) return 0;
  const view = new DataView(new ArrayBuffer(8));
  view.setBigInt64(0, BigInt(column[k]));
  return view.getFloat64(0);
}

function bits(mask) {
  let n = 0;
  for (; mask; mask &= mask - 1) n++;
  return n;
}

/** n values of 8 bytes each, as byte planes: plane i is there where bit i of the mask is set, else it is byte i of `rest`. */
class Column {
  constructor(planes, at, n, mask, rest) { Object.assign(this, { planes, at, n, mask, rest: BigInt(rest) }); }

  array() {
    const { planes, n, mask, rest } = this;
    let low = Number(rest & 0xffffffffn), high = Number(rest >> 32n);
    if (!mask && high < 0x200000) return new Float64Array(n).fill(high * 4294967296 + low);
    const lows = new Uint32Array(n).fill(low), highs = new Uint32Array(n).fill(high);
    let at = this.at;
    for (let plane = 0; plane < 8; plane++) {
      if (!(mask >> plane & 1)) continue;
      const into = plane < 4 ? lows : highs, shift = 8 * (plane & 3);
      for (let i = 0; i < n; i++) into[i] |= planes[at + i] << shift;
      at += n;
    }
    let safe = true;
    for (let i = 0; i < n && safe; i++) safe = highs[i] < 0x200000;
    if (safe) {
      const values = new Float64Array(n);
      for (let i = 0; i < n; i++) values[i] = highs[i] * 4294967296 + lows[i];
      return values;
    }
    const values = new Array(n);
    for (let i = 0; i < n; i++) values[i] = narrow(BigInt.asIntN(64, (BigInt(highs[i]) << 32n) | BigInt(lows[i])));
    return values;
  }
}

function narrow(big) {
  return big <= 9007199254740991n && big >= -9007199254740991n ? Number(big) : big;
}
