// Following a session that runs: its frames come as server-sent events, are decoded here, and tell how far it is and what it does.

import { json, query, session as path } from "./api.js";
import { announce, h, swap } from "./dom.js";
import { KIND, StreamDecoder } from "./frames.js";
import { EVENTS } from "./vocabulary.js";
import { count, duration } from "./units.js";

const DRAW = 200;       // ms between two pictures
const OUTLINE = 1500;   // ms between two looks for new tasks
const WINDOW = 10e9;    // ns in view when following begins

export class Live {
  constructor(app) {
    this.app = app;
    this.open = app.open;
    this.following = false;
    this.state = "connecting";
    this.rate = 0;
    this.seen = 0;
    this.recent = [];
    this.latest = 0;        // ns, of the last event that has come
    // of a session that is being indexed still, what is behind is not asked for: that would be all of it
    this.offset = this.open.outline.indexed < 1 ? Math.max(this.open.info.bytes, this.open.outline.offset) : this.open.outline.offset;
    this.decoder = new StreamDecoder(this.offset, EVENTS);
    this.listeners = new Set();
    this.queue = [];   // [ms, ns]: when something came, and how far it went
    this.lags = [];    // ms from coming to being drawn
    this.connect();
    this.timer = setInterval(() => this.tick(), DRAW);
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.retry);
    this.source?.close();
  }

  // --- the stream ----------------------------------------------------------------------------------

  connect() {
    this.source?.close();
    const source = this.source = new EventSource(path(this.open.name, `/live${query({ from: this.offset, plain: true })}`));
    source.addEventListener("open", () => { if (this.state === "reconnecting") announce("Connected again; nothing was missed."); this.resumed = this.state === "reconnecting" ? performance.now() : 0; this.state = "live"; this.draw(); });
    source.addEventListener("frames", (event) => { this.offset = Number(event.lastEventId); this.take(bytesOf(event.data)); });
    source.addEventListener("end", () => { source.close(); this.state = "ended"; this.finish(); });
    source.addEventListener("error", () => {
      if (this.state === "ended") return;
      if (this.state !== "reconnecting") announce("The connection is lost; trying again.");
      this.state = "reconnecting";
      this.draw();
      // A browser gives up where the answer is no stream, as while a service starts: it is asked again.
      if (source.readyState === EventSource.CLOSED) { clearTimeout(this.retry); this.retry = setTimeout(() => this.connect(), 1000); }
    });
  }

  take(bytes) {
    const began = this.open.outline.began;
    for (const item of this.decoder.push(bytes)) {
      if (item.kind === KIND.EVENTS) {
        const { batch } = item;
        this.seen += batch.count;
        this.recent.push([performance.now(), batch.count]);
        this.latest = Math.max(this.latest, Number(batch.until - began));
        for (const listener of this.listeners) listener(batch);
      } else if (item.kind === KIND.GENERATION) this.latest = Math.max(this.latest, Number(item.monotonic - began));
      else if (item.kind === KIND.LOSS) this.lost = true;
    }
    this.queue.push([performance.now(), this.latest]);
    this.fresh = true;
  }

  async finish() {
    this.open.info = await json(path(this.open.name)).catch(() => this.open.info);
    do await this.refresh(); while (this.open.outline.indexed < 1 && this.app.open === this.open && !this.failed);
    this.following = false;
    this.draw();
    announce("The session has ended.");
  }

  // --- pictures ------------------------------------------------------------------------------------

  attach(view) {
    this.view = view;
    if (view.timeline && !this.looking) this.follow();
    this.draw();
  }

  follow() {
    if (this.state === "ended") return;
    this.following = true;
    this.looking = false;
    const t = this.view?.timeline;
    if (t && t.span > WINDOW * 1.001) { this.setting = true; t.show(Math.max(0, this.latest - WINDOW), Math.max(this.latest, WINDOW), true); this.setting = false; }
    this.fresh = true;
    this.draw();
  }

  pause() { this.following = false; this.looking = true; this.draw(); }
  toggle() { if (this.following) this.pause(); else this.follow(); }

  /** The user has moved: who looks at the past is not to be dragged along. */
  looked() {
    const t = this.view?.timeline;
    if (this.setting || !t || this.state === "ended") return;
    const atEnd = t.end >= this.open.outline.ended * 0.9999 && t.end >= this.latest - t.span * 0.02;
    if (this.following && !atEnd) { this.pause(); announce("Paused: looking at the past. Press l to follow again."); }
  }

  async tick() {
    this.rates();
    const t = this.view?.timeline;
    if (this.fresh && t && this.following && !document.hidden) {
      this.fresh = false;
      const { outline } = this.open, span = Math.max(t.span, 1e6);
      outline.ended = Math.max(outline.ended, this.latest);
      this.setting = true;
      t.show(outline.ended - span, outline.ended, true);
      this.setting = false;
      t.stale();
    } else if (this.fresh && t && !this.following) { this.open.outline.ended = Math.max(this.open.outline.ended, this.latest); }
    // what is drawn by now came so long ago
    const drawn = this.following && t ? t.marks.ended ?? 0 : Infinity;
    while (this.queue.length && this.queue[0][1] <= drawn) { const [came] = this.queue.shift(); if (drawn < Infinity) this.lags.push(performance.now() - came); }
    if (this.lags.length > 1000) this.lags.splice(0, 500);
    if (this.seen && performance.now() - (this.outlined ?? 0) > Math.max(OUTLINE, 20 * (this.cost ?? 0)) && !this.refreshing && this.state === "live") this.refresh();
    this.draw();
  }

  async refresh() {
    this.refreshing = true;
    const began = performance.now();
    try {
      const ended = this.open.outline.ended;
      const outline = await this.open.refresh();
      outline.ended = Math.max(ended, outline.ended);
      this.view?.refreshed?.(outline);
      this.failed = false;
    } catch { this.failed = true; /* the stream says what is wrong */ } finally {
      this.outlined = performance.now();
      this.cost = this.outlined - began;
      this.refreshing = false;
    }
  }

  rates() {
    const now = performance.now();
    while (this.recent.length && this.recent[0][0] < now - 3000) this.recent.shift();
    this.rate = this.recent.reduce((sum, [, n]) => sum + n, 0) / 3;
  }

  draw() {
    const { mark } = this.app;
    if (!mark) return;
    const text = { connecting: "connecting", reconnecting: "reconnecting", ended: "ended" }[this.state]
      ?? (!this.view?.timeline ? "live" : this.following ? `live, ${count(Math.round(this.rate))} events/s` : "paused");
    const why = this.following ? "Follows the session; l pauses" : "l follows the session";
    const behind = !this.following && this.state === "live" && this.view?.timeline ? `${duration(Math.max(0, this.latest - this.view.timeline.end))} behind` : "";
    const key = `${this.state}${this.following}${text}${behind}${this.resumed && performance.now() - this.resumed < 6000}`;
    if (key === this.drawn && mark.firstChild === this.button) return;
    this.drawn = key;
    if (this.state === "ended") { swap(mark, h("span", { class: "mark ended" }, h("i"), "ended")); return; }
    this.button = h("button", { class: "quiet mark-button", title: why, "aria-pressed": this.following, onclick: () => this.toggle() }, h("span", { class: `mark ${this.state === "live" && this.following ? "live" : this.state === "reconnecting" ? "broken" : ""}` }, h("i"), text),
      this.resumed && performance.now() - this.resumed < 6000 ? h("span", { class: "faint" }, "resumed, nothing missed") : null,
      behind ? h("span", { class: "faint" }, behind) : null);
    swap(mark, this.button);
  }
}

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
