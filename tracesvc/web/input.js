// Pointer and keys on the timeline.

import { count, duration, instant, percent } from "./units.js";
import { h, swap } from "./dom.js";
import { firstAfter, xOf } from "./paint.js";
import { CODE, stateName } from "./theme.js";

const NEAR = 3;  // px that a pointer may be beside what it means, or move within a click

export function bindPointer(t) {
  const { canvas, rowsElement } = t;
  const pointers = new Map();
  let press = null;

  const local = (event, element = canvas) => { const box = element.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

  rowsElement.addEventListener("wheel", (event) => {
    const [x] = local(event);
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      t.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.008), t.timeAt(Math.max(0, x)));
    } else {
      const across = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
      if (Math.abs(across) > Math.abs(event.shiftKey ? 0 : event.deltaY)) { event.preventDefault(); t.pan(across / t.width); }
    }
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = local(event);
    pointers.set(event.pointerId, [x, y]);
    const pan = event.button === 1 || event.shiftKey || event.pointerType === "touch";
    press = pointers.size === 2 ? pinch() : { x, y, pan, start: t.start, end: t.end, moved: false };
    if (event.button === 1) event.preventDefault();
  });
  const pinch = () => { const [a, b] = [...pointers.values()]; return { pinch: true, moved: true, start: t.start, end: t.end, at: (a[0] + b[0]) / 2, apart: Math.max(20, Math.abs(a[0] - b[0])) }; };
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [x, y]);
    if (!press) { hover(x, y, event); return; }
    hideTip();
    if (press.pinch) {
      if (pointers.size < 2) return;
      const now = pinch(), span = (press.end - press.start) * press.apart / now.apart;
      const at = press.start + press.at / t.width * (press.end - press.start);
      t.show(at - now.at / t.width * span, at - now.at / t.width * span + span);
      return;
    }
    if (Math.abs(x - press.x) > NEAR) press.moved = true;
    if (!press.moved) return;
    if (press.pan) { const by = (press.x - x) / t.width * (press.end - press.start); canvas.classList.add("grab"); t.show(press.start + by, press.end + by); }
    else t.selectRange([t.timeAt(Math.max(0, Math.min(press.x, x))), t.timeAt(Math.min(t.width, Math.max(press.x, x)))], false);
  });
  const up = (event) => {
    pointers.delete(event.pointerId);
    canvas.classList.remove("grab");
    const was = press;
    press = pointers.size ? press : null;
    if (!was || event.type === "pointercancel" || was.pinch) return;
    const [x, y] = local(event);
    if (!was.moved) pick(t, x, y + rowsElement.scrollTop);
    else if (!was.pan) t.selectRange(t.range, true);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("dblclick", () => t.fit());
  canvas.addEventListener("pointerleave", () => { t.cursor = null; hideTip(); t.dirty(); });

  t.labels.addEventListener("click", (event) => {
    const label = event.target.closest(".label");
    if (!label) return;
    const i = t.outline.byId.get(label.row.id);
    if (i === undefined) return;
    const twist = event.target.closest(".twist") || label.row.kind === "section" || label.row.kind === "group";
    if (twist) t.toggle(label.row);
    t.focusRow(t.outline.byId.get(label.row.id) ?? i);
    if (!twist) t.on.pick({ kind: "row", row: label.row });
  });

  const tip = h("div", { class: "tip", hidden: true });
  t.element.append(tip);
  const hideTip = () => { tip.hidden = true; };
  const hover = (x, y, event) => {
    t.cursor = event.pointerType === "mouse" ? Math.round(x) : null;
    t.dirty();
    const lines = event.pointerType === "mouse" ? describe(t, x, y + rowsElement.scrollTop) : null;
    if (!lines) { hideTip(); return; }
    swap(tip, lines.map((line, i) => h("div", { class: i ? "soft" : "clip" }, i ? line : h("b", { dir: "auto" }, line))));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - box.width - 8)}px`;
    tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
  };

  bindOverview(t);
}

function bindOverview(t) {
  const canvas = t.overCanvas;
  let press = null;
  const time = (event) => { const box = canvas.getBoundingClientRect(); return (event.clientX - box.left) / box.width * t.outline.ended; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const at = time(event), inside = at >= t.start && at <= t.end && t.span < t.outline.ended * 0.98;
    press = { at, inside, start: t.start, end: t.end };
    if (!inside && t.span < t.outline.ended * 0.98) { t.show(at - t.span / 2, at + t.span / 2); press = { at, inside: true, start: t.start, end: t.end }; }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!press) return;
    const at = time(event);
    if (press.inside) t.show(press.start + at - press.at, press.end + at - press.at);
    else if (Math.abs(at - press.at) > t.outline.ended / 300) t.show(Math.min(at, press.at), Math.max(at, press.at));
  });
  for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, () => { press = null; });
}

/** [row, time, index] of what is at a place of the canvas. */
function locate(t, x, y) {
  const i = t.outline.at(y), row = t.rows[i];
  if (!row || y > row.y + row.height) return null;
  return { i, row, time: t.timeAt(x), slack: NEAR / t.width * t.span };
}

/** The one of a row's things at a time; of several the shortest, and near is good enough. */
function thingAt(content, time, slack) {
  const { begin, end } = content;
  let best = -1;
  for (let k = 0; k < begin.length; k++) {
    if (begin[k] - slack > time || end[k] + slack < time) continue;
    if (best < 0 || end[k] - begin[k] < end[best] - begin[best]) best = k;
  }
  return best;
}

function phaseAt(content, time) {
  const k = firstAfter(content.end, time);
  return k < content.begin.length && content.begin[k] <= time ? k : -1;
}

export function pick(t, x, y) {
  const found = locate(t, x, y);
  if (!found) { t.select(null); return; }
  const { row, time, slack } = found;
  t.focus = found.i;
  const content = t.contents.get(row.row);
  if (row.kind === "task") { t.select({ kind: "phase", task: row.task, time, row: row.id }); return; }
  if (row.kind === "section" || row.kind === "group") { t.selection = null; t.dirty(); t.on.pick({ kind: "row", row }); return; }
  if (row.kind === "run" && content?.steps) {
    const k = phaseAt(content.steps, time);
    if (k >= 0) { t.select({ kind: "phase", task: content.steps.task[k], time: content.steps.begin[k], row: `t${content.steps.task[k]}` }); return; }
  }
  if (content?.begin && (row.kind === "span" || row.kind === "thread" || row.kind === "gc")) {
    const k = thingAt(content, time, slack);
    if (k >= 0) {
      const thing = { start: content.begin[k], end: content.end[k], row: row.id };
      if (row.kind === "span") t.select({ kind: "span", id: content.id[k], ...thing });
      else t.select({ kind: row.kind, task: content.task[k], name: t.outline.texts[content.name[k]], generation: content.id[k], ...thing });
      return;
    }
  }
  if (row.kind === "logs" && content?.time) {
    let best = -1;
    for (let k = 0; k < content.time.length; k++) if (Math.abs(xOf(t.view, content.time[k]) - x) < 8) best = k;
    if (best >= 0) { t.select({ kind: "message", time: content.time[best], task: content.task[best], level: content.level[best], text: content.text[best], row: row.id, start: content.time[best], end: content.time[best] }); return; }
  }
  t.selection = null;
  t.dirty();
  t.on.pick({ kind: "row", row });
}

/** Lines that say what is under the pointer. */
function describe(t, x, y) {
  const found = locate(t, x, y);
  if (!found) return null;
  const { row, time, slack } = found, content = t.contents.get(row.row);
  const at = instant(time, t.span / t.width);
  if (row.kind === "group") return [`${row.label} ${row.more}`, at];
  if (!content) return null;
  if (row.kind === "task") {
    if (content.begin) {
      const k = phaseAt(content, time);
      if (k < 0) return null;
      const by = content.code[k] >= CODE.BLOCKED && content.waker[k] ? `woken by ${t.outline.name(content.waker[k])}` : null;
      return [row.label, `${stateName(content.code[k]).replaceAll("_", " ")} for ${duration(content.end[k] - content.begin[k])}`, by].filter(Boolean);
    }
    const k = Math.floor((time - content.from) / (content.to - content.from) * content.running.length);
    if (!(content.running[k] || content.ready[k] || content.blocked[k])) return null;
    const share = (name) => percent(content[name][k] / 255);
    return [row.label, `running ${share("running")}, runnable ${share("ready")}, waiting ${share("blocked")}`, `in ${duration((content.to - content.from) / content.running.length)} at ${at}`];
  }
  if (row.kind === "run") {
    const k = content.steps ? phaseAt(content.steps, time) : -1;
    if (k >= 0) return [t.outline.name(content.steps.task[k]), `step of ${duration(content.steps.end[k] - content.steps.begin[k])}`];
    const w = content.waits.begin ? phaseAt(content.waits, time) : -1;
    return w >= 0 ? [row.label, `waits for I/O, ${duration(content.waits.end[w] - content.waits.begin[w])}`] : [row.label, at];
  }
  if (row.kind === "counter") {
    const times = content.time, k = times ? firstAfter(times, time) - 1 : -1;
    return k >= 0 ? [row.label, String(content.value[k]), at] : [row.label, at];
  }
  if (content.begin) {
    const k = thingAt(content, time, slack);
    return k < 0 ? null : [row.kind === "gc" ? `collection of generation ${content.id[k]}` : t.outline.texts[content.name[k]] || row.label, `${duration(content.end[k] - content.begin[k])}${content.open[k] ? ", has not ended" : ""}`];
  }
  return content.count ? [row.label || "spans", `${count(content.count)} in view: zoom in to tell them apart`] : null;
}

/** Keys, as people know them from Perfetto; `?` on the page lists them. */
export function bindKeys(t) {
  const held = new Set();
  let frame = 0, last = 0;
  const step = (now) => {
    const dt = Math.min(50, now - last) / 1000;
    last = now;
    if (held.has("w")) t.zoom(Math.exp(-2.2 * dt), t.cursorTime());
    if (held.has("s")) t.zoom(Math.exp(2.2 * dt), t.cursorTime());
    if (held.has("a")) t.pan(-0.9 * dt);
    if (held.has("d")) t.pan(0.9 * dt);
    frame = held.size ? requestAnimationFrame(step) : 0;
  };
  t.cursorTime = () => (t.cursor !== null && t.cursor !== undefined ? t.timeAt(t.cursor) : (t.start + t.end) / 2);
  const hold = (key) => { held.add(key); if (!frame) { last = performance.now(); frame = requestAnimationFrame(step); } };
  const down = (event) => {
    if (event.target.closest("input, select, textarea, dialog, .menu") && event.key !== "Escape") return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog")) return;
    // beside the rows, what moves there or presses a button is not the timeline's
    if (event.target.closest(".side, #bar") && (event.key.length > 1 || event.key === " ") && event.key !== "Escape") return;
    const row = t.rows[t.focus];
    switch (event.key) {
      case "w": case "s": case "a": case "d":
        if (!event.repeat) { ({ w: () => t.zoom(0.8, t.cursorTime()), s: () => t.zoom(1.25, t.cursorTime()), a: () => t.pan(-0.12), d: () => t.pan(0.12) })[event.key](); }
        hold(event.key);
        break;
      case "+": case "=": t.zoom(0.5, t.cursorTime()); break;
      case "-": t.zoom(2, t.cursorTime()); break;
      case "ArrowLeft": t.pan(-0.12); break;
      case "ArrowRight": t.pan(0.12); break;
      case "ArrowUp": t.focusRow(t.focus - 1); break;
      case "ArrowDown": t.focusRow(t.focus + 1); break;
      case "PageUp": t.focusRow(t.focus - Math.floor(t.height / 22)); break;
      case "PageDown": t.focusRow(t.focus + Math.floor(t.height / 22)); break;
      case "Home": t.focusRow(0); break;
      case "End": t.focusRow(t.rows.length - 1); break;
      case "Enter": case " ": {
        if (event.target.closest("button, a")) return;
        if (row && t.outline.canOpen(row) && (event.key === " " || row.kind !== "task")) t.toggle(row);
        else if (row?.kind === "task") t.select({ kind: "phase", task: row.task, time: (t.start + t.end) / 2, row: row.id });
        else if (row) t.on.pick({ kind: "row", row });
        break;
      }
      case "f": t.fit(); break;
      case "0": t.whole(); break;
      case "[": case "]": t.on.step?.(event.key === "]" ? 1 : -1); break;
      case "m": t.selectRange([t.start, t.end]); break;
      case "Escape": t.path = null; t.selectRange(null); break;
      default: return;
    }
    event.preventDefault();
  };
  const up = (event) => held.delete(event.key);
  const off = () => held.clear();
  addEventListener("keydown", down);
  addEventListener("keyup", up);
  addEventListener("blur", off);
  return () => { removeEventListener("keydown", down); removeEventListener("keyup", up); removeEventListener("blur", off); cancelAnimationFrame(frame); };
}
