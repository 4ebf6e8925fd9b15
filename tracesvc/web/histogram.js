// A histogram over a logarithmic scale; a bar is a button that leads to what is in it.

import { fitted } from "./painter.js";
import { h } from "./dom.js";
import { colours } from "./theme.js";
import { count, duration } from "./units.js";

const BARS = 48;

/** `pick(low, high)` is called with the bounds of the bar that is chosen. */
export function histogram(data, pick) {
  const canvas = h("canvas", { class: "histogram", tabindex: "0", role: "slider", "aria-label": "Bars of the histogram: left and right choose one, Enter shows its slowest", "aria-valuemin": 0, "aria-valuenow": 0, "aria-valuetext": "" });
  const note = h("div", { class: "faint" }, " ");
  const low = Math.log(Math.max(data.min, 1)), high = Math.log(Math.max(data.max, data.min + 1, 2));
  const step = Math.max((high - low) / BARS, 1e-9);
  const bars = [];
  for (const bucket of data.buckets) {
    const middle = Math.log(Math.max((bucket.low + bucket.high) / 2, 1)), i = Math.min(BARS - 1, Math.max(0, Math.floor((middle - low) / step)));
    const bar = bars[i] ??= { low: bucket.low, high: bucket.high, count: 0 };
    bar.count += bucket.count;
    bar.low = Math.min(bar.low, bucket.low);
    bar.high = Math.max(bar.high, bucket.high);
  }
  const most = Math.max(...bars.filter(Boolean).map((bar) => bar.count));
  let at = -1;
  const draw = () => {
    const width = canvas.parentElement?.clientWidth ?? 0;
    if (!width) return;
    const tall = 120, g = fitted(canvas, width, tall), w = width / BARS, base = tall - 18;
    g.font = `11px ${colours.font}`;
    bars.forEach((bar, i) => {
      if (!bar) return;
      const y = Math.max(2, bar.count / most * (base - 8));
      g.fillStyle = i === at ? colours.accent : colours.running;
      g.globalAlpha = i === at ? 1 : 0.75;
      g.fillRect(i * w + 1, base - y, Math.max(1, w - 2), y);
    });
    g.globalAlpha = 1;
    g.fillStyle = colours.line;
    g.fillRect(0, base, width, 1);
    g.fillStyle = colours.soft;
    for (const [name, value] of [["p50", data.p50], ["p99", data.p99]]) {
      const x = Math.min(width - 1, (Math.log(Math.max(value, 1)) - low) / (high - low) * width);
      g.fillStyle = colours.soft;
      g.fillRect(x, 0, 1, base);
      g.textAlign = x > width - 90 ? "right" : "left";
      g.fillText(`${name} ${duration(value)}`, x + (x > width - 90 ? -4 : 4), name === "p50" ? 10 : 22);
    }
    g.textAlign = "left";
    g.fillText(duration(data.min), 0, tall - 5);
    g.textAlign = "right";
    g.fillText(duration(data.max), width, tall - 5);
  };
  const choose = (i) => {
    if (!bars[i]) return;
    at = i;
    const text = `${count(bars[i].count)} of ${duration(bars[i].low)} to ${duration(bars[i].high)}`;
    note.textContent = text;
    canvas.setAttribute("aria-valuenow", i);
    canvas.setAttribute("aria-valuetext", text);
    draw();
  };
  const near = (event) => Math.min(BARS - 1, Math.floor(event.offsetX / canvas.clientWidth * BARS));
  canvas.setAttribute("aria-valuemax", BARS - 1);
  canvas.addEventListener("pointermove", (event) => choose(near(event)));
  canvas.addEventListener("click", (event) => { const bar = bars[near(event)]; if (bar) pick(bar.low, bar.high - 1); });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { let i = at + by; while (i >= 0 && i < BARS && !bars[i]) i += by; choose(i); } else if (event.key === "Enter" && bars[at]) pick(bars[at].low, bars[at].high - 1); else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const element = h("div", { "data-bars": bars.filter(Boolean).length, "data-most": most }, canvas, note);
  new ResizeObserver(draw).observe(element);
  const onTheme = () => { if (element.isConnected) draw(); else removeEventListener("theme", onTheme); };
  addEventListener("theme", onTheme);
  return element;
}
