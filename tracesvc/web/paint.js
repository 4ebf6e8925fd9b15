// Drawing rows on a canvas. `view` has start, end (ns) and width (px); contents are what the service sent for a row.

import { below } from "./outline.js";
import { CODE, colours, stateName } from "./theme.js";
import { amount, duration } from "./units.js";

export const BAR = 16;
const LEVELS = [[40, "bad"], [30, "ready"], [0, "faint"]];

export function xOf(view, time) { return (time - view.start) / (view.end - view.start) * view.width; }

/** The first of `ends` (ascending) that is behind `time`. */
export function firstAfter(ends, time) {
  let low = 0, high = ends.length;
  while (low < high) { const middle = (low + high) >> 1; if (ends[middle] <= time) low = middle + 1; else high = middle; }
  return low;
}

function fits(g, text, width) {
  if (width < 22) return "";
  const room = Math.floor((width - 8) / g.charWidth);
  return text.length <= room ? text : room < 4 ? "" : `${text.slice(0, room - 1)}…`;
}

function write(g, text, x, y, colour) {
  g.fillStyle = colour;
  g.fillText(text, x, y);
}

/** A bar from x to x + w of which only what is to be seen is drawn; at least a pixel wide. */
function bar(g, x, w, y, height, width) {
  const from = Math.max(x, -2), to = Math.min(x + Math.max(w, 1), width + 2);
  if (to > from) g.fillRect(from, y, to - from, height);
}

// --- tasks -----------------------------------------------------------------------------------------

/** Each state has a height as well as a colour: running 16, runnable 10, waiting 4. */
export function paintTask(g, row, content, y, view) {
  if (content.begin) paintPhases(g, content, y, view);
  else if (content.running) paintBins(g, content, y, view);
  if (content.regions) paintRegions(g, content.regions, y, view);
}

function paintPhases(g, content, y, view) {
  const { begin, end, code } = content, scale = view.width / (view.end - view.start);
  const top = y + 3;
  let style = null;
  for (let i = firstAfter(end, view.start); i < begin.length && begin[i] < view.end; i++) {
    const x = (begin[i] - view.start) * scale, w = (end[i] - begin[i]) * scale, c = code[i];
    if (c === CODE.UNSURE) { hatch(g, x, top, Math.max(w, 1), BAR, view.width); style = null; continue; }
    const colour = colours.state[c];
    if (colour !== style) g.fillStyle = style = colour;
    if (c === CODE.RUNNING) bar(g, x, w, top, BAR, view.width);
    else if (c === CODE.READY) bar(g, x, w, top + 3, 10, view.width);
    else {
      bar(g, x, w, top + 6, 4, view.width);
      if (w > 60) {
        const label = fits(g, stateName(c).replaceAll("_", " "), Math.min(x + w, view.width) - Math.max(x, 0));
        if (label) { const at = Math.max(x, 0) + 6; g.fillStyle = colours.surface; g.fillRect(at - 3, top + 4, label.length * g.charWidth + 6, 8); write(g, label, at, top + 12, colours.soft); style = null; }
      }
    }
  }
}

/** Sums per pixel as columns, kept as a picture that is stretched while newer ones are on their way. */
function paintBins(g, content, y, view) {
  // New ones are made as long as the frame has time for it; until then the one before is stretched.
  if (!content.picture) {
    if (performance.now() < g.until) { content.picture = picture(content); content.before = null; } else g.late = true;
  }
  const shown = content.picture ? content : content.before;
  if (!shown?.picture) return;
  const x = xOf(view, shown.from), w = xOf(view, shown.to) - x;
  g.imageSmoothingEnabled = false;
  g.drawImage(shown.picture, x, y + 3, w, BAR);
}

export function forgetPictures(contents) {
  for (const content of contents) if (content.picture) content.picture = null;
}

function picture(content) {
  const { running, ready, blocked, unsure, reason } = content, width = running.length;
  const canvas = new OffscreenCanvas(width, BAR), g = canvas.getContext("2d");
  const image = g.createImageData(width, BAR), pixels = new Uint32Array(image.data.buffer);
  const run = colours.packed[CODE.RUNNING], wait = colours.packed[CODE.READY], lost = colours.packed[CODE.UNSURE];
  for (let x = 0; x < width; x++) {
    let from = BAR;
    const r = share(running[x]), q = share(ready[x]), u = unsure.length ? share(unsure[x]) : 0;
    for (let k = 0; k < r && from > 0; k++) pixels[--from * width + x] = run;
    for (let k = 0; k < q && from > 0; k++) pixels[--from * width + x] = wait;
    for (let k = 0; k < u && from > 0; k++) pixels[--from * width + x] = lost;
    if (blocked[x] && from > 6) {
      const colour = colours.packed[reason[x] || CODE.BLOCKED];
      for (let k = 6; k < 10 && k < from; k++) pixels[k * width + x] = colour;
    }
  }
  g.putImageData(image, 0, 0);
  return canvas;
}

function share(value) { return value ? Math.max(1, Math.round(value * BAR / 255)) : 0; }

function paintRegions(g, regions, y, view) {
  if (!regions.begin) {
    if (regions.share) paintShare(g, regions, y + 17, 3, view, colours.region);
    return;
  }
  g.fillStyle = colours.region;
  for (let i = 0; i < regions.begin.length; i++) {
    const x = xOf(view, regions.begin[i]), w = xOf(view, regions.end[i]) - x;
    if (x < view.width && x + w > 0) bar(g, x, w, y + 18, 2, view.width);
  }
}

function paintShare(g, content, y, height, view, colour, upwards = false) {
  const x0 = xOf(view, content.from), step = (xOf(view, content.to) - x0) / content.share.length;
  g.fillStyle = colour;
  const first = Math.max(0, Math.floor(-x0 / step)), last = Math.min(content.share.length, Math.ceil((view.width - x0) / step));
  for (let i = first; i < last;) {
    let j = i + 1;
    const value = content.share[i];
    while (j < last && content.share[j] === value) j++;
    if (value) { const tall = Math.max(1, height * value / 255); g.fillRect(x0 + i * step, upwards ? y + height - tall : y + (height - tall) / 2, Math.max(step * (j - i), 1), tall); }
    i = j;
  }
}

// --- groups ----------------------------------------------------------------------------------------

/** How many of a group live, over time. */
export function paintPopulation(g, outline, row, y, view, height) {
  const { begins, ends, most } = outline.population(row);
  if (!most) return;
  const bottom = y + height - 3, tall = row.quiet ? 5 : height - 6;
  g.fillStyle = colours[row.quiet ? "line" : "line-strong"];
  g.beginPath();
  g.moveTo(0, bottom);
  let at = 0;
  for (let x = 0; x <= view.width; x += 1) {
    const time = view.start + (x + 0.5) / view.width * (view.end - view.start);
    const live = below(begins, time) - below(ends, time);
    at = bottom - tall * live / most;
    g.lineTo(x, at);
  }
  g.lineTo(view.width, bottom);
  g.fill();
  if (!row.quiet) write(g, `at most ${most.toLocaleString("en-US")} at once`, 6, y + 14, colours.soft);
}

// --- runs ------------------------------------------------------------------------------------------

export function paintRun(g, row, content, y, view, outline) {
  const top = y + 4, height = 18;
  const from = Math.max(0, xOf(view, content.first)), to = Math.min(view.width, Math.max(xOf(view, content.last), xOf(view, content.first) + 1));
  if (to > from) { g.fillStyle = colours.busy; g.globalAlpha = content.steps ? 0.22 : 0.55; g.fillRect(from, top, to - from, height); g.globalAlpha = 1; }
  const waits = content.waits;
  if (waits.begin) {
    g.fillStyle = colours.io;
    for (let i = firstAfter(waits.end, view.start); i < waits.begin.length && waits.begin[i] < view.end; i++) { const x = xOf(view, waits.begin[i]); bar(g, x, xOf(view, waits.end[i]) - x, top, height, view.width); }
  } else if (waits.share) {
    g.fillStyle = colours.surface;
    paintShare(g, waits, top, height, view, colours.io, false);
  }
  if (!content.steps) return;
  const { begin, end, task } = content.steps;
  for (let i = firstAfter(end, view.start); i < begin.length && begin[i] < view.end; i++) {
    const x = xOf(view, begin[i]), w = xOf(view, end[i]) - x;
    g.fillStyle = colours.running;
    bar(g, x, w - (w > 4 ? 1 : 0), top, height, view.width);
    const label = w > 40 && fits(g, outline.name(task[i]), Math.min(x + w, view.width) - Math.max(x, 0));
    if (label) write(g, label, Math.max(x, 0) + 5, top + 13, colours["on-running"]);
  }
}

// --- spans, calls, collections ---------------------------------------------------------------------

export function paintSlices(g, row, content, y, view, outline, colour, ink) {
  const top = y + 3;
  if (!content.begin) { if (content.share) paintShare(g, content, top, BAR, view, colour, true); return; }
  const { begin, end, name, task, open } = content;
  for (let i = 0; i < begin.length; i++) {
    if (end[i] < view.start || begin[i] > view.end) continue;
    const x = xOf(view, begin[i]), w = xOf(view, end[i]) - x;
    g.fillStyle = colour;
    bar(g, x, w - (w > 3 ? 1 : 0), top, BAR, view.width);
    if (open[i]) { g.fillStyle = colours.surface; g.fillRect(Math.min(x + w, view.width) - 3, top, 2, BAR); }
    const label = w > 40 && fits(g, `${outline.texts[name[i]] || outline.name(task[i])}  ${duration(end[i] - begin[i])}`, Math.min(x + w, view.width) - Math.max(x, 0));
    if (label) write(g, label, Math.max(x, 0) + 5, top + 12, ink);
  }
}

// --- messages and counters -------------------------------------------------------------------------

const levelColour = (level) => colours[LEVELS.find(([least]) => level >= least)?.[1] ?? "faint"];

export function paintLogs(g, row, content, y, view) {
  const middle = y + row.height / 2;
  const dot = (x, level) => { g.fillStyle = levelColour(level); if (level >= 30) { g.beginPath(); g.moveTo(x, middle - 5); g.lineTo(x + 5, middle + 4); g.lineTo(x - 5, middle + 4); g.fill(); } else g.fillRect(x - 1.5, middle - 4, 3, 8); };
  if (content.time) {
    for (let i = 0; i < content.time.length; i++) {
      const x = xOf(view, content.time[i]);
      if (x < -10 || x > view.width + 10) continue;
      dot(x, content.level[i]);
      const room = (i + 1 < content.time.length ? xOf(view, content.time[i + 1]) : view.width) - x - 14;
      const label = room > 60 && fits(g, content.text[i].replace(/\s+/g, " "), room);
      if (label) write(g, label, x + 8, y + 15, colours.soft);
    }
  } else if (content.pixel) {
    const x0 = xOf(view, content.from), step = (xOf(view, content.to) - x0) / content.width;
    content.pixel.forEach((p, i) => dot(x0 + (p + 0.5) * step, content.worst[i]));
  }
}

export function paintCounter(g, row, content, y, view) {
  const times = content.time ?? Float64Array.from(content.pixel, (p) => content.from + (p + 0.5) / content.width * (content.to - content.from));
  const highs = content.value ?? content.high, lows = content.value ?? content.low, lasts = content.value ?? content.last;
  let low = 0, high = -Infinity;
  for (let i = 0; i < highs.length; i++) { low = Math.min(low, lows[i]); high = Math.max(high, highs[i]); }
  if (high <= low) high = low + 1;
  const top = y + 6, tall = row.height - 12, level = (value) => top + tall - (value - low) / (high - low) * tall;
  g.beginPath();
  let started = false, last = 0;
  for (let i = 0; i < times.length; i++) {
    const x = xOf(view, times[i]);
    if (x > view.width + 50) { if (started) g.lineTo(x, level(last)); break; }
    if (started) { g.lineTo(x, level(last)); } else { g.moveTo(Math.max(x, -50), level(highs[i])); started = true; }
    if (highs[i] !== lows[i]) { g.lineTo(x, level(highs[i])); g.lineTo(x, level(lows[i])); }
    last = lasts[i];
    g.lineTo(x, level(last));
  }
  if (!started) return;
  // a value holds until the next one
  g.lineTo(Math.min(view.width + 50, Math.max(xOf(view, content.ended), 0)), level(last));
  g.strokeStyle = colours.running;
  g.lineWidth = 1.25;
  g.stroke();
  const shown = row.label === "trio.loop_lag" ? duration : amount;
  write(g, `${shown(high)}`, 6, y + 13, colours.soft);
  row.scale = { low, high };
}

// --- over everything -------------------------------------------------------------------------------

let pattern = null;
addEventListener("theme", () => { pattern = null; });

/** What is not known is hatched, wherever it is. */
export function hatch(g, x, y, w, height, width) {
  if (!pattern) {
    const tile = new OffscreenCanvas(8, 8), t = tile.getContext("2d");
    t.strokeStyle = colours.hatch;
    t.lineWidth = 1.5;
    t.beginPath();
    for (const d of [-8, 0, 8]) { t.moveTo(d, 8); t.lineTo(d + 8, 0); }
    t.stroke();
    pattern = g.createPattern(tile, "repeat");
  }
  const from = Math.max(x, -8), to = Math.min(x + w, width + 8);
  if (to <= from) return;
  g.fillStyle = pattern;
  g.fillRect(from, y, to - from, height);
}

export function paintBand(g, x, w, height, colour, width) {
  g.fillStyle = colour;
  bar(g, x, w, 0, height, width);
}

/** An arrow from the row of who did it to the row of whom it woke. */
export function paintArrow(g, x, from, to, colour, dashed) {
  const bend = Math.min(24, Math.abs(to - from) / 3 + 6), down = to > from ? 1 : -1;
  g.strokeStyle = g.fillStyle = colour;
  g.lineWidth = 1.25;
  g.setLineDash(dashed ? [4, 3] : []);
  g.beginPath();
  g.moveTo(x, from);
  g.bezierCurveTo(x - bend, from + down * 4, x - bend, to - down * 4, x - 4, to);
  g.stroke();
  g.setLineDash([]);
  g.beginPath();
  g.moveTo(x, to);
  g.lineTo(x - 5, to - 3);
  g.lineTo(x - 5, to + 3);
  g.fill();
}

/** An arrow from one time on one row to a later one on another. */
export function paintThrow(g, x, y, toX, toY, colour) {
  const down = toY > y ? 1 : -1, reach = Math.max(6, Math.min(60, Math.abs(toY - y) / 2));
  g.strokeStyle = g.fillStyle = colour;
  g.lineWidth = 1.25;
  g.setLineDash([4, 3]);
  g.beginPath();
  g.moveTo(x, y);
  g.bezierCurveTo(x, y + down * reach, toX, toY - down * reach, toX, toY - down * 8);
  g.stroke();
  g.setLineDash([]);
  g.beginPath();
  g.moveTo(toX, toY - down * 4);
  g.lineTo(toX - 3, toY - down * 9);
  g.lineTo(toX + 3, toY - down * 9);
  g.fill();
}

/** Where a cancellation reached a task. */
export function paintCross(g, x, y, colour) {
  g.strokeStyle = colour;
  g.lineWidth = 1.75;
  g.beginPath();
  g.moveTo(x - 3.5, y - 3.5);
  g.lineTo(x + 3.5, y + 3.5);
  g.moveTo(x + 3.5, y - 3.5);
  g.lineTo(x - 3.5, y + 3.5);
  g.stroke();
}
