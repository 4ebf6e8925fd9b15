// One frame of the timeline: bands, rows, arrows, selection; the labels beside them; ruler, overview and foot.

import { h, swap } from "./dom.js";
import { hatch, paintArrow, paintBand, paintCounter, paintCross, paintLogs, paintPopulation, paintRun, paintSlices, paintTask, paintThrow, xOf } from "./paint.js";
import { CODE, colours } from "./theme.js";
import { clock, count, duration, instant, niceStep, short } from "./units.js";

const PICTURES = 5;  // ms of a frame, for pictures of sums
const ARROWS = 250;
const CANCEL = 5;

export function fitted(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const g = canvas.getContext("2d", { alpha: true });
  g.setTransform(scale, 0, 0, scale, 0, 0);
  return g;
}

/** Intervals [_, start, end] put together where they touch. */
function merged(intervals) {
  const made = [];
  for (const [, start, end] of [...intervals].sort((a, b) => a[1] - b[1])) {
    const last = made.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end); else made.push([start, end]);
  }
  return made;
}

export class Painter {
  constructor(timeline) {
    this.t = timeline;
    this.elements = new Map();
  }

  resize() {
    const { t } = this;
    this.g = fitted(t.canvas, t.width, t.height);
    t.labels.style.height = `${t.height}px`;
    this.ruler = fitted(t.rulerCanvas, t.width, 24);
    this.over = fitted(t.overCanvas, t.width, t.overCanvas.parentElement.clientHeight - 24 || 40);
    this.overHeight = t.overCanvas.parentElement.clientHeight - 24 || 40;
    for (const g of [this.g, this.ruler, this.over]) {
      g.font = `11.5px ${colours.font}`;
      g.charWidth = g.measureText("abcdefghijklmnopqrstuvwxyz_.0123456789").width / 38;
    }
  }

  paint() {
    const { t, g } = this;
    if (!g) return;
    const top = t.rowsElement.scrollTop, view = t.view, [first, past] = t.visible();
    t.spacer.style.height = `${Math.max(t.outline.height, t.height)}px`;
    g.until = performance.now() + PICTURES;
    g.late = false;
    g.clearRect(0, 0, t.width, t.height);
    this.bands(view);
    const ys = new Map();
    for (let i = first; i < past; i++) {
      const row = t.rows[i], y = row.y - top;
      if (row.task) ys.set(row.task, y + row.height / 2);
      this.row(row, y, view, i === t.focus);
    }
    this.arrows(ys, view, top);
    this.path(ys, view);
    this.chosen(ys, view, top);
    this.drawRuler(view);
    this.drawOverview(view);
    this.drawLabels(first, past, top);
    this.drawFoot();
    if (g.late) t.again();
  }

  row(row, y, view, focused) {
    const { t, g } = this;
    if (row.kind === "section") { g.fillStyle = colours.paper; g.fillRect(0, y, t.width, row.height); g.fillStyle = colours.line; g.fillRect(0, y, t.width, 1); g.fillRect(0, y + row.height - 1, t.width, 1); return; }
    if (focused) { g.fillStyle = colours["band-pick"]; g.fillRect(0, y, t.width, row.height); }
    if (row.kind === "group") { paintPopulation(g, t.outline, row, y, view, row.height); return; }
    const content = t.contents.get(row.row);
    if (!content) return;
    switch (row.kind) {
      case "task": paintTask(g, row, content, y, view); break;
      case "run":
        paintRun(g, row, content, y, view, t.outline);
        if (t.outline.runs.length > 1) for (const [start, end, proc] of t.marks.stalls) if (proc === row.proc) this.band(view, start, end, y, row.height);
        break;
      case "span": paintSlices(g, row, content, y, view, t.outline, colours.span, colours["span-ink"]); break;
      case "thread": paintSlices(g, row, content, y, view, t.outline, colours.state[CODE.BLOCKED + 12], colours["on-ready"]); break;
      case "gc": paintSlices(g, row, content, y, view, { texts: [], name: () => "collection" }, colours.gc, colours["span-ink"]); break;
      case "logs": paintLogs(g, row, content, y, view); break;
      case "counter": paintCounter(g, row, content, y, view); g.fillStyle = colours.line; g.fillRect(0, y + row.height - 1, t.width, 1); break;
    }
  }

  bands(view) {
    const { t, g } = this;
    const gc = t.contents.get("gc");
    if (gc?.begin) for (let i = 0; i < gc.begin.length; i++) { const x = xOf(view, gc.begin[i]), w = xOf(view, gc.end[i]) - x; if (w > 0.3 && x < view.width && x + w > 0) paintBand(g, x, w, t.height, colours["band-gc"], view.width); }
    // with several loops a long step stops one of them: then it is marked on its row
    if (t.outline.runs.length < 2) for (const [start, end] of t.marks.stalls) this.band(view, start, end, 0, t.height);
    g.globalAlpha = 0.35;
    for (const [start, end] of merged(t.marks.losses)) { const x = xOf(view, start), w = Math.max(xOf(view, end) - x, 3); if (x < view.width && x + w > 0) hatch(g, x, 0, w, t.height, view.width); }
    const since = xOf(view, t.outline.since);
    if (since > 0) hatch(g, 0, 0, since, t.height, view.width);
    g.globalAlpha = 1;
  }

  band(view, start, end, y, height) {
    const x = xOf(view, start), w = xOf(view, end) - x, { g } = this;
    if (x >= view.width || x + w <= 0) return;
    g.fillStyle = colours["band-stall"];
    g.fillRect(Math.max(x, 0), y, Math.max(1, Math.min(x + w, view.width) - Math.max(x, 0)), height);
  }

  arrows(ys, view, top) {
    const { t, g } = this;
    const found = [];
    const picked = t.selection?.task;
    const told = this.cancels(ys, view, top);
    for (const [task, y] of ys) {
      const content = t.contents.get(`t${task}`);
      if (!content?.begin) continue;
      const { begin, end, code, waker, cause } = content;
      for (let i = 0; i < begin.length; i++) {
        if (code[i] < CODE.BLOCKED || !waker[i] || end[i] < view.start || end[i] > view.end) continue;
        const near = waker[i] === picked || task === picked;
        if (waker[i] === task) continue;
        // a cancellation has its own arrow, from when it was asked for to when it came
        if (cause[i] === CANCEL && told.get(task)?.some(([came, asked]) => asked <= end[i] && end[i] <= came)) continue;
        let from = ys.get(waker[i]);
        if (from === undefined) {
          if (!near) continue;
          const at = t.outline.byId.get(`t${waker[i]}`);
          if (at === undefined) continue;
          from = t.rows[at].y - top + 11;
        }
        found.push([xOf(view, end[i]), from, y, cause[i] === CANCEL, near]);
        if (found.length > 4 * ARROWS) return;
      }
    }
    const all = found.length <= ARROWS;
    for (const [x, from, to, cancel, near] of found) {
      if (!all && !near) continue;
      g.globalAlpha = near ? 1 : 0.4;
      paintArrow(g, x, from, to, cancel ? colours.bad : near ? colours.accent : colours.soft, cancel);
    }
    g.globalAlpha = 1;
    t.arrows = all ? found.length : found.filter((a) => a[4]).length;
  }

  /** From who asked for a cancellation to every task that it reached; task -> [came, asked] of those that are drawn. */
  cancels(ys, view, top) {
    const { t, g } = this, told = new Map(), arrows = [];
    const picked = t.selection?.task;
    for (const [came, task, asked, by] of t.marks.cancels) {
      const y = ys.get(task), x = xOf(view, came);
      if (y === undefined || x < -10 || x > view.width + 10) continue;
      if (!told.has(task)) told.set(task, []);
      told.get(task).push([came, asked]);
      const row = by && by !== task ? t.rows[t.outline.byId.get(`t${by}`)] : undefined;
      arrows.push([x, y, xOf(view, asked), row && row.y - top + row.height / 2, task === picked || by === picked]);
    }
    const all = arrows.length <= ARROWS;
    t.cancelled = [];
    for (const [x, y, asked, from, near] of arrows) {
      if (!all && !near) continue;
      paintCross(g, x, y, colours.bad);
      if (from === undefined) { t.cancelled.push(false); continue; }
      g.globalAlpha = near ? 1 : 0.7;
      paintThrow(g, Math.max(asked, -50), from, x, y, colours.bad);
      g.globalAlpha = 1;
      t.cancelled.push(true);
    }
    return told;
  }

  /** Pieces of a critical path, from row to row. */
  path(ys, view) {
    const { t, g } = this;
    if (!t.path) return;
    g.strokeStyle = colours.bad;
    g.lineWidth = 2.5;
    let before = null;
    g.beginPath();
    for (const { task, start, end } of t.path) {
      const y = ys.get(task);
      if (y === undefined) { before = null; continue; }
      const x = Math.max(-4, Math.min(view.width + 4, xOf(view, start))), to = Math.max(-4, Math.min(view.width + 4, xOf(view, end)));
      if (before !== null) g.lineTo(x, y + 9); else g.moveTo(x, y + 9);
      g.lineTo(to, y + 9);
      before = y;
    }
    g.stroke();
  }

  chosen(ys, view, top) {
    const { t, g } = this;
    if (t.range) {
      const x = xOf(view, t.range[0]), w = xOf(view, t.range[1]) - x;
      g.fillStyle = colours["band-pick"];
      g.fillRect(x, 0, w, t.height);
      g.fillStyle = colours.accent;
      g.fillRect(x, 0, 1, t.height);
      g.fillRect(x + w - 1, 0, 1, t.height);
    }
    const s = t.selection;
    if (s && s.start !== undefined && s.row) {
      const i = t.outline.byId.get(s.row);
      if (i !== undefined) {
        const row = t.rows[i], x = xOf(view, s.start), w = Math.max(xOf(view, s.end) - x, 2);
        g.strokeStyle = colours.ink;
        g.lineWidth = 1.5;
        const from = Math.max(x, -4), to = Math.min(x + w, view.width + 4);
        if (to > from) g.strokeRect(from - 0.5, row.y - top + 1.5, to - from + 1, row.height - 3);
      }
    }
    if (t.cursor !== null && t.cursor !== undefined) { g.fillStyle = colours.faint; g.globalAlpha = 0.5; g.fillRect(t.cursor, 0, 1, t.height); g.globalAlpha = 1; }
  }

  drawRuler(view) {
    const { t, ruler: g } = this;
    g.clearRect(0, 0, t.width, 24);
    const span = view.end - view.start, step = niceStep(span / Math.max(2, Math.floor(t.width / 110)));
    g.fillStyle = colours.soft;
    const first = Math.ceil(view.start / step) * step;
    for (let k = 0, time = first; time <= view.end && k < 1000; k++, time = first + k * step) {
      const x = Math.round(xOf(view, time));
      g.fillStyle = colours["line-strong"];
      g.fillRect(x, 16, 1, 8);
      g.fillStyle = colours.soft;
      g.fillText(instant(time, step), x + 4, 15);
    }
    this.g.fillStyle = colours.line;
    this.g.globalAlpha = 0.7;
    for (let k = 0, time = first; time <= view.end && k < 1000; k++, time = first + k * step) this.g.fillRect(Math.round(xOf(view, time)), 0, 1, t.height);
    this.g.globalAlpha = 1;
    const wall = t.outline.wall === null ? "" : clock(t.outline.wall + BigInt(Math.round(view.start)));
    if (t.rulerLabel.textContent !== wall) t.rulerLabel.textContent = wall;
  }

  /** The whole session with the part in view marked: how many tasks live, over time. */
  drawOverview(view) {
    const { t, over: g, overHeight: height } = this;
    const whole = { start: 0, end: Math.max(t.outline.ended, 1), width: t.width };
    g.clearRect(0, 0, t.width, height);
    const everyone = this.everyone();
    if (everyone.members.length) {
      const { begins, ends, most } = t.outline.population(everyone);
      g.fillStyle = colours["line-strong"];
      g.beginPath();
      g.moveTo(0, height);
      let i = 0, j = 0;
      for (let x = 0; x <= t.width; x++) {
        const time = (x + 0.5) / t.width * whole.end;
        while (i < begins.length && begins[i] <= time) i++;
        while (j < ends.length && ends[j] <= time) j++;
        g.lineTo(x, height - (height - 6) * (i - j) / Math.max(most, 1));
      }
      g.lineTo(t.width, height);
      g.fill();
    }
    for (const [start, end] of merged(t.marks.losses)) hatch(g, xOf(whole, start), 0, Math.max(xOf(whole, end) - xOf(whole, start), 3), height, t.width);
    const x = xOf(whole, view.start), w = Math.max(xOf(whole, view.end) - x, 2);
    g.globalAlpha = 0.62;
    g.fillStyle = colours.surface;
    g.fillRect(0, 0, x, height);
    g.fillRect(x + w, 0, t.width - x - w, height);
    g.globalAlpha = 1;
    g.fillStyle = colours.accent;
    g.fillRect(x, 0, 2, height);
    g.fillRect(x + w - 2, 0, 2, height);
    g.fillRect(x, height - 2, w, 2);
    const label = `${duration(t.outline.ended)}, ${count(t.outline.events)} events`;
    if (t.overLabel.textContent !== label) t.overLabel.textContent = label;
  }

  everyone() {
    const { t } = this;
    if (this.all?.outline !== t.outline) {
      this.all = { outline: t.outline, members: t.outline.kids.get(-1) ?? [] };
    }
    return this.all;
  }

  // --- labels --------------------------------------------------------------------------------------

  drawLabels(first, past, top) {
    const { t } = this, seen = new Set();
    for (let i = first; i < past; i++) {
      const row = t.rows[i];
      seen.add(row.id);
      let element = this.elements.get(row.id);
      if (!element || element.row !== row) {
        const before = element, held = before && before === document.activeElement;
        element = this.label(row);
        this.elements.set(row.id, element);
        t.labels.append(element);
        // an outline that has been made anew takes the focus from nobody
        if (held) { element.tabIndex = 0; element.focus({ preventScroll: true }); }
        before?.remove();
      }
      element.style.transform = `translateY(${row.y - top}px)`;
      const focused = i === t.focus;
      if (element.focused !== focused) { element.focused = focused; element.tabIndex = focused ? 0 : -1; element.setAttribute("aria-selected", focused); }
      if (row.canOpen) { const open = String(t.outline.isOpen(row)); if (element.getAttribute("aria-expanded") !== open) element.setAttribute("aria-expanded", open); }
    }
    for (const [id, element] of this.elements) if (!seen.has(id)) {
      // who has the focus keeps it, or the keyboard would be lost when its row scrolls away
      if (element === document.activeElement) { t.rowsElement.tabIndex = -1; t.rowsElement.focus({ preventScroll: true }); }
      element.remove();
      this.elements.delete(id);
    }
  }

  label(row) {
    const { t } = this;
    row.canOpen = t.outline.canOpen(row);
    const element = h("div", {
      class: `label${row.kind === "section" ? " section" : ""}${row.dead ? " dead" : ""}`, role: "treeitem", "aria-level": row.depth + 1, "data-row": row.id,
      title: row.label.length > 20 ? row.label.slice(0, 400) : false,
      style: { height: `${row.height}px`, paddingLeft: `${8 + Math.min(row.depth, 10) * 10}px` },
    }, row.canOpen ? h("span", { class: "twist", "aria-hidden": "true" }) : h("span", { class: "twist", style: { visibility: "hidden" } }),
    row.label ? h("span", { class: "text", dir: "auto" }, short(row.label).slice(0, 300)) : h("span", { class: "unseen" }, `lane ${(row.lane ?? 0) + 1}`), row.more ? h("span", { class: row.raised ? "more bad" : "more" }, row.more) : null);
    element.row = row;
    return element;
  }

  drawFoot() {
    const { t } = this;
    const parts = [h("span", {}, h("b", {}, duration(t.span)), " in view")];
    if (t.range) parts.push(h("span", {}, h("b", {}, duration(t.range[1] - t.range[0])), " selected"));
    if (t.outline.lost) parts.push(h("span", { class: "bad" }, `${count(t.outline.lost)} events lost`));
    if (t.outline.tasks.omitted) parts.push(h("span", {}, `${count(t.outline.tasks.omitted)} short tasks without a row`));
    if (t.outline.since) parts.push(h("span", {}, `what is older than ${instant(t.outline.since, 1e6)} is too much to keep drawn`));
    if (t.trouble) parts.push(h("span", { class: "bad" }, t.trouble));
    const key = parts.map((part) => part.textContent).join("|");
    if (key === this.footKey) return;
    this.footKey = key;
    swap(t.foot, parts, h("span", { class: "gap" }), legend());
  }
}

const LEGEND = [["running", "running", ""], ["runnable", "ready", "middle"], ["waits: sleep", "r-sleep", "thin"], ["channel", "r-channel", "thin"], ["lock", "r-lock", "thin"],
  ["event", "r-event", "thin"], ["nursery", "r-nursery", "thin"], ["I/O", "r-io", "thin"], ["thread", "r-thread", "thin"], ["other", "r-other", "thin"]];

export function legend() {
  return h("div", { class: "legend", role: "img", "aria-label": "Colours: running is tall, runnable of middle height, waiting thin, by what is waited for; lost is hatched" },
    LEGEND.map(([text, colour, shape]) => h("span", {}, h("i", { class: `swatch ${shape}`, style: { background: `var(--${colour})` } }), text)), h("span", {}, h("i", { class: "swatch hatch" }), "lost"));
}
