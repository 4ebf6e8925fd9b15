// msgpack, decoded: the whole of its specification but for extension types, which come as {extension, data}.

const text = new TextDecoder();

/** Decodes one value after the other from `bytes`. Integers that a double does not hold come as BigInt. */
export class Decoder {
  constructor(bytes, offset = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = offset;
  }

  value() {
    const b = this.u8();
    if (b < 0x80) return b;
    if (b < 0x90) return this.map(b & 15);
    if (b < 0xa0) return this.array(b & 15);
    if (b < 0xc0) return this.string(b & 31);
    if (b >= 0xe0) return b - 256;
    switch (b) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.bin(this.u8());
      case 0xc5: return this.bin(this.u16());
      case 0xc6: return this.bin(this.u32());
      case 0xc7: return this.extension(this.u8());
      case 0xc8: return this.extension(this.u16());
      case 0xc9: return this.extension(this.u32());
      case 0xca: return this.view.getFloat32(this.skip(4));
      case 0xcb: return this.view.getFloat64(this.skip(8));
      case 0xcc: return this.u8();
      case 0xcd: return this.u16();
      case 0xce: return this.u32();
      case 0xcf: return narrow(this.view.getBigUint64(this.skip(8)));
      case 0xd0: return this.view.getInt8(this.skip(1));
      case 0xd1: return this.view.getInt16(this.skip(2));
      case 0xd2: return this.view.getInt32(this.skip(4));
      case 0xd3: return narrow(this.view.getBigInt64(this.skip(8)));
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return this.extension(1 << (b - 0xd4));
      case 0xd9: return this.string(this.u8());
      case 0xda: return this.string(this.u16());
      case 0xdb: return this.string(this.u32());
      case 0xdc: return this.array(this.u16());
      case 0xdd: return this.array(this.u32());
      case 0xde: return this.map(this.u16());
      case 0xdf: return this.map(this.u32());
      default: throw new Error(`no msgpack at byte ${this.at - 1}`);
    }
  }

  skip(n) {
    const at = this.at;
    if (at + n > this.bytes.length) throw new Error("msgpack ends too early");
    this.at += n;
    return at;
  }

  u8() { return this.view.getUint8(this.skip(1)); }
  u16() { return this.view.getUint16(this.skip(2)); }
  u32() { return this.view.getUint32(this.skip(4)); }
  bin(n) { const at = this.skip(n); return this.bytes.subarray(at, at + n); }
  string(n) { return text.decode(this.bin(n)); }
  extension(n) { const extension = this.view.getInt8(this.skip(1)); return { extension, data: this.bin(n) }; }

  array(n) {
    if (n > this.bytes.length - this.at) throw new Error("msgpack ends too early");
    const values = new Array(n);
    for (let i = 0; i < n; i++) values[i] = this.value();
    return values;
  }

  map(n) {
    const values = Object.create(null);  // keys are data: "__proto__" is one like any other
    for (let i = 0; i < n; i++) { const key = this.value(); values[key] = this.value(); }
    return values;
  }
}

function narrow(big) {
  return big <= 9007199254740991n && big >= -9007199254740991n ? Number(big) : big;
}

export function decode(bytes) {
  return new Decoder(bytes).value();
}

/** A typed array of what lies, little-endian, in `bytes`; a copy, for it may lie anywhere. */
export function column(bytes, Type) {
  return new Type(bytes.slice().buffer);
}
