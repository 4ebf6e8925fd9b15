// The timeline: what part of the session is in view, which rows, and getting what is on them in time.

import { ask, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { bindKeys, bindPointer } from "./input.js";
import { column } from "./msgpack.js";
import { Painter } from "./painter.js";
import { forgetPictures } from "./paint.js";
import { duration } from "./units.js";

const MARGIN = 0.5;  // of the view, asked for on either side
const KEPT = 1200;   // rows whose contents are kept
const LEAST = 10;    // ns in view
const SPARE = 6;     // rows asked for above and below

const COLUMNS = {
  begin: Float64Array, end: Float64Array, time: Float64Array, value: Float64Array, low: Float64Array, high: Float64Array, last: Float64Array,
  task: Float64Array, id: Float64Array, waker: Float64Array, name: Int32Array, pixel: Int32Array,
  code: Uint8Array, cause: Uint8Array, closed: Uint8Array, open: Uint8Array, running: Uint8Array, ready: Uint8Array, blocked: Uint8Array,
  unsure: Uint8Array, reason: Uint8Array, share: Uint8Array,
};

function unpacked(content) {
  for (const key of Object.keys(content)) {
    const value = content[key];
    if (value instanceof Uint8Array) content[key] = column(value, COLUMNS[key]);
    else if (value && typeof value === "object" && !Array.isArray(value)) unpacked(value);
  }
  return content;
}

export class Timeline {
  /** `host` gets the elements; `on` has `pick(selection)` and `moved()`. */
  constructor(host, session, outline, on) {
    Object.assign(this, { host, session, outline, on });
    this.contents = new Map();
    this.marks = { stalls: [], losses: [], cancels: [] };
    this.start = 0;
    this.end = Math.max(outline.ended, 1);
    this.focus = 0;
    this.selection = null;   // {kind, ...}, what the details are about
    this.range = null;       // [start, end] that is selected
    this.path = null;        // pieces of a critical path
    this.follow = false;
    this.asked = null;
    this.waiting = [];
    this.frames = { times: new Float64Array(600), count: 0, unpacking: 0 };  // ms of script of each, answers taken in since the one before included
    this.build();
    this.painter = new Painter(this);
    bindPointer(this);
    this.unbind = bindKeys(this);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.rowsElement);
    this.onTheme = () => { forgetPictures(this.contents.values()); this.overview = null; this.dirty(); };
    addEventListener("theme", this.onTheme);
    this.resize();
  }

  build() {
    const make = (name) => { const canvas = h("canvas", { "aria-hidden": "true" }); this[name] = canvas; return canvas; };
    this.overLabel = h("div", { class: "over-label" });
    this.rulerLabel = h("div", { class: "ruler-label" });
    this.headElement = h("div", { class: "head" }, this.overLabel, make("overCanvas"), this.rulerLabel, make("rulerCanvas"));
    this.labels = h("div", { class: "labels" });
    this.spacer = h("div", { class: "spacer" }, h("div", { class: "stage" }, this.labels, make("canvas")));
    this.rowsElement = h("div", { class: "rows", role: "tree", "aria-label": "Rows of the timeline", "aria-multiselectable": "false" }, this.spacer);
    this.foot = h("div", { class: "foot" });
    this.element = h("div", { class: "timeline" }, this.headElement, this.rowsElement, this.foot);
    this.rowsElement.addEventListener("scroll", () => this.dirty(), { passive: true });
    swap(this.host, this.element);
  }

  close() {
    this.unbind();
    this.observer.disconnect();
    removeEventListener("theme", this.onTheme);
    this.asked?.abort();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.closed = true;
  }

  // --- what is in view -----------------------------------------------------------------------------

  get view() { return { start: this.start, end: this.end, width: this.width }; }
  get span() { return this.end - this.start; }
  timeAt(x) { return this.start + x / this.width * this.span; }

  resize() {
    const gutter = parseFloat(getComputedStyle(this.element).getPropertyValue("--gutter")) || 280;
    this.gutter = gutter;
    this.height = this.rowsElement.clientHeight;
    this.width = Math.max(40, this.rowsElement.clientWidth - gutter);
    this.painter.resize();
    this.dirty();
  }

  /** Show from `start` to `end`, as far as there is something. */
  show(start, end, quiet = false) {
    const whole = Math.max(this.outline.ended, 1), span = Math.min(Math.max(end - start, LEAST), whole);
    start = Math.min(Math.max(start, 0), whole - span);
    this.start = start;
    this.end = start + span;
    if (!quiet) this.on.moved();
    this.dirty();
  }

  zoom(factor, at = (this.start + this.end) / 2) {
    const span = Math.min(Math.max(this.span * factor, LEAST), Math.max(this.outline.ended, 1));
    const share = (at - this.start) / this.span;
    this.show(at - share * span, at - share * span + span);
  }

  pan(share) {
    const by = share * this.span;
    this.show(this.start + by, this.end + by);
  }

  whole() { this.show(0, this.outline.ended); }

  fit() {
    if (this.range) { const [a, b] = this.range, pad = (b - a) * 0.05; this.show(a - pad, b + pad); return; }
    const s = this.selection;
    if (s?.start !== undefined && s.end !== undefined) { const pad = Math.max((s.end - s.start) * 0.5, LEAST / 2); this.show(s.start - pad, s.end + pad); }
  }

  // --- rows ----------------------------------------------------------------------------------------

  get rows() { return this.outline.rows; }

  /** [first, past] of the rows that are in sight. */
  visible(spare = 0) {
    const top = this.rowsElement.scrollTop;
    return [Math.max(0, this.outline.at(top) - spare), Math.min(this.rows.length, this.outline.at(top + this.height) + 1 + spare)];
  }

  replaceOutline(outline) {
    const id = this.rows[this.focus]?.id, before = this.outline;
    this.outline = outline;
    this.focus = Math.max(0, outline.byId.get(id) ?? 0);
    if (before.indexed < 1) {  // who saw the whole of a part sees the whole of what it has become
      this.version++;
      if (this.start <= 0 && this.end >= before.ended) this.show(0, outline.ended, true);
    }
    this.dirty();
  }

  toggle(row, open) { this.outline.toggle(row, open); this.focus = this.outline.byId.get(row.id) ?? 0; this.dirty(); }

  focusRow(i, move = true) {
    this.focus = Math.min(Math.max(i, 0), this.rows.length - 1);
    this.scrollTo(this.rows[this.focus]);
    this.painter.paint();
    if (move) this.labels.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  scrollTo(row, middle = false) {
    const top = this.rowsElement.scrollTop;
    this.spacer.style.height = `${this.outline.height}px`;
    if (middle && (row.y < top + 20 || row.y + row.height > top + this.height - 20)) this.rowsElement.scrollTop = row.y - this.height / 2;
    else if (row.y < top) this.rowsElement.scrollTop = row.y;
    else if (row.y + row.height > top + this.height) this.rowsElement.scrollTop = row.y + row.height - this.height;
  }

  revealTask(task) {
    const i = this.outline.reveal(task);
    if (i >= 0) { this.focus = i; this.scrollTo(this.rows[i], true); }
    this.dirty();
    return i >= 0;
  }

  select(selection) { this.selection = selection; this.range = null; this.dirty(); this.on.pick(selection); }
  selectRange(range, done = true) { this.range = range; if (range) this.selection = null; this.dirty(); if (done) this.on.pick(range ? { kind: "range", start: range[0], end: range[1] } : null); }

  // --- contents ------------------------------------------------------------------------------------

  /** Draw in the next frame, and ask for what is missing. */
  dirty() {
    if (this.frame || this.closed) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const began = performance.now();
      this.painter.paint();
      const times = this.frames;
      times.times[times.count++ % times.times.length] = performance.now() - began + times.unpacking;
      times.unpacking = 0;
      this.fetch();
    });
  }

  /** One more frame, after this one. */
  again() { setTimeout(() => this.dirty()); }

  /** Whether what there is of a row is good enough for the view. */
  good(content) {
    if (!content) return false;
    if (content.rough) return content.version === this.version;
    const detail = this.span / this.width, had = (content.to - content.from) / content.width;
    // what has been told one by one stays right however far one looks into it
    const exact = content.exact && content.version === this.version;
    return content.version === this.version && content.from <= Math.max(this.start, 0) && content.to >= Math.min(this.end, this.outline.ended) &&
      (exact ? had < detail * 8 : had < detail * 1.6) && (exact || had > detail / 2.2);
  }

  version = 0;

  /** What was sent is out of date: there is more. */
  stale() { this.version++; this.dirty(); }

  async fetch() {
    if (this.asked || this.closed) return;
    const [first, past] = this.visible(SPARE);
    const wanted = [];
    for (let i = first; i < past; i++) { const row = this.rows[i].row; if (row && !this.good(this.contents.get(row))) wanted.push(row); }
    if (this.outline.collections && !wanted.includes("gc") && !this.good(this.contents.get("gc"))) wanted.push("gc");
    const marksOld = !this.good({ ...this.marks, exact: false });
    if (!wanted.length && !marksOld) { for (const done of this.waiting.splice(0)) requestAnimationFrame(() => done()); return; }
    const pad = this.span * MARGIN;
    const start = Math.max(0, Math.floor(this.start - pad)), end = Math.max(start + 1, Math.min(Math.ceil(this.end + pad), Math.ceil(this.outline.ended)));
    const width = Math.max(1, Math.min(8192, Math.ceil(this.width * (end - start) / this.span)));
    const version = this.version;
    const began = this.outline.began;
    this.asked = new AbortController();
    try {
      const answer = await ask(path(this.session, `/timeline${query({ start: began + BigInt(start), end: began + BigInt(end), width, rows: wanted.slice(0, 400).join(","), rough: this.outline.indexed < 1 || null })}`), { signal: this.asked.signal });
      // an overview has no row that there is no room for: what is missing is not asked for again until it is exact
      if (answer.rough) for (const row of wanted) answer.rows[row] ??= { count: 0 };
      this.take(answer, { from: answer.start, to: answer.end, width: answer.width, version, ended: answer.ended, rough: Boolean(answer.rough) });
      this.trouble = "";
    } catch (error) {
      if (this.closed || error.name === "AbortError") return;
      this.trouble = error.message;
      await new Promise((go) => { this.timer = setTimeout(go, 1000); });
    } finally {
      this.asked = null;
    }
    this.dirty();
  }

  take(answer, place) {
    const began = performance.now();
    for (const [row, content] of Object.entries(answer.rows)) {
      unpacked(content);
      Object.assign(content, place);
      content.exact = row[0] === "t" ? Boolean(content.begin) : row[0] === "r" ? Boolean(content.steps) : row[0] === "c" ? false : !content.share && !content.pixel;
      for (const part of ["waits", "regions"]) if (content[part]) Object.assign(content[part], place);
      const before = this.contents.get(row);
      if (content.running && before) content.before = before.picture ? { picture: before.picture, from: before.from, to: before.to } : before.before;
      this.contents.delete(row);
      this.contents.set(row, content);
    }
    Object.assign(this.marks, place, { stalls: answer.stalls, losses: answer.losses, cancels: answer.cancels });
    for (const row of this.contents.keys()) { if (this.contents.size <= KEPT) break; this.contents.delete(row); }
    this.frames.unpacking += performance.now() - began;
  }

  /** A promise of the moment when everything in view has come. */
  ready() {
    return new Promise((done) => { this.waiting.push(done); this.dirty(); });
  }

  scaleText() { return duration(this.span); }
}
