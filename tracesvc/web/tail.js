// Events one by one, decoded in the browser: as they come, or from a moment of a session on.

import { query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { KIND, StreamDecoder } from "./frames.js";
import { EVENTS, LOSSES, REASONS } from "./vocabulary.js";
import { count, instant } from "./units.js";

const KEPT = 4000;    // lines


export class Tail {
  constructor(host, app, params) {
    Object.assign(this, { host, app });
    this.open = app.open;
    this.filter = "";
    this.events = [];
    this.total = 0;
    this.log = h("div", { class: "log", role: "log", "aria-label": "Events", tabindex: "0" });
    this.note = h("span", { class: "soft" });
    const find = this.find = h("input", { type: "search", placeholder: "Filter, like step_block or worker", "aria-label": "Filter the events", value: params.get("filter") ?? "", oninput: () => { this.filter = find.value.trim().toLowerCase(); this.draw(true); } });
    this.filter = find.value.toLowerCase();
    this.from = Number(params.get("from") ?? 0);
    this.onwards = h("button", { hidden: true, onclick: () => app.go("events", { from: Math.max(this.from + 1, Math.floor(this.events.at(-1)[0])), ...(this.filter ? { filter: find.value } : {}) }) }, "Go on from here");
    this.pauseButton = h("button", { "aria-pressed": "false", hidden: this.open.info.state !== "live", onclick: () => { this.paused = !this.paused; this.pauseButton.setAttribute("aria-pressed", this.paused); this.pauseButton.textContent = this.paused ? "Go on" : "Hold"; this.draw(true); } }, "Hold");
    swap(host, h("div", { class: "tail" }, h("div", { class: "slider" }, h("div", { class: "line" }, find, this.pauseButton, this.onwards, this.note)), this.log));
    this.read(this.from);
  }

  close() { this.closed = true; this.source?.close(); cancelAnimationFrame(this.frame); clearTimeout(this.retry); }
  restore(params) { return Number(params.get("from") ?? 0) === this.from; }

  /** Reads from the generation that `from` (ns) is in; goes on as long as the session does. */
  read(from) {
    const live = this.open.info.state === "live", { generations } = this.open.outline;
    let start = 0, i = generations.findLastIndex(([time]) => time <= from);
    if (live && !from) i = generations.length - 1;
    if (i >= 0) start = generations[i][1];
    this.offset ??= start;
    this.decoder ??= new StreamDecoder(start, EVENTS);
    const source = this.source = new EventSource(path(this.open.name, `/live${query({ from: this.offset, plain: true })}`));
    source.addEventListener("frames", (event) => {
      this.offset = Number(event.lastEventId);
      this.take(Uint8Array.from(atob(event.data), (c) => c.charCodeAt(0)), from);
      if (this.full) { source.close(); this.onwards.hidden = false; }
      this.soon();
    });
    source.addEventListener("end", () => { source.close(); this.over = true; this.pauseButton.hidden = !this.paused; this.soon(); });
    source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED && !this.over && !this.closed) this.retry = setTimeout(() => this.read(from), 1000); });
  }

  take(bytes, from) {
    const { began } = this.open.outline;
    for (const item of this.decoder.push(bytes)) {
      if (item.kind === KIND.EVENTS) {
        if (this.full) return;
        const live = this.open.info.state === "live", room = live ? item.batch.count - KEPT : 0;
        let k = 0;
        for (const event of item.batch.events()) {
          if (k++ < room) { this.total++; continue; }
          const time = Number(event.time - began);
          if (time < from) continue;
          this.total++;
          this.events.push([time, event.proc, event.seq, event.type, this.told(event)]);
          if (!live && this.events.length >= KEPT) { this.full = true; return; }
        }
      } else if (item.kind === KIND.LOSS) {
        for (const loss of item.losses) this.events.push([Number(loss.start - began), loss.proc, loss.first, "LOST", `${count(loss.last - loss.first + 1)} events: ${LOSSES[loss.cause]?.meaning ?? loss.cause}`]);
      } else if (item.damage) this.events.push([0, 0, 0, "DAMAGED", `bytes ${count(item.start)} to ${count(item.end)}`]);
    }
    if (this.events.length > 2 * KEPT) this.events.splice(0, this.events.length - KEPT);
  }

  told(event) {
    const parts = [];
    for (const [key, value] of Object.entries(event)) {
      if (key === "type" || key === "time" || key === "proc" || key === "seq" || value === null || value === "") continue;
      const shown = key === "reason" ? REASONS[value]?.name ?? value : key === "stack" ? value.map(([fn, file, line]) => `${fn} (${file}:${line})`).join(" < ") : typeof value === "object" ? JSON.stringify(value, (_, v) => (typeof v === "bigint" ? String(v) : v)) : value;
      parts.push(`${key}=${shown}`);
      if (key === "task" && value) { const name = this.open.outline.name(value); if (!name.startsWith("task ")) parts.push(`(${name})`); }
    }
    return parts.join(" ").slice(0, 2000);
  }

  soon() { this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); }); }

  draw(anyway = false) {
    if (this.paused && !anyway) return;
    const wanted = this.filter.split(/\s+/).filter(Boolean);
    const fits = (event) => { const text = `${event[3]} ${event[4]}`.toLowerCase(); return wanted.every((word) => text.includes(word)); };
    const shown = wanted.length ? this.events.filter(fits) : this.events;
    const atEnd = this.log.scrollTop + this.log.clientHeight > this.log.scrollHeight - 40;
    const lines = (this.open.info.state === "live" ? shown.slice(-1500) : shown).map(([time, proc, seq, type, text]) => h("div", { class: type === "LOST" || type === "DAMAGED" ? "bad" : "" }, h("span", { class: "faint" }, `${instant(time, 1).padStart(16)}  ${String(proc).padStart(3)}:${String(seq).padEnd(8)}`), ` ${type.padEnd(14)} ${text}`));
    swap(this.log, lines);
    if (this.open.info.state === "live" && atEnd) this.log.scrollTop = this.log.scrollHeight;
    this.note.textContent = `${count(this.total)} events read${this.full ? ", there are more" : ""}${this.filter ? `, ${count(shown.length)} fit` : ""}`;
  }
}
