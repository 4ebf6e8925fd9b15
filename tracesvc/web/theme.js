// Colours, from the style sheet: one place says what things look like.

import { REASONS } from "./vocabulary.js";

const GROUPS = {
  sleep: "sleep", channel_send: "channel", channel_receive: "channel", lock: "lock", semaphore: "lock", limiter: "lock", condition: "lock",
  event: "event", nursery: "nursery", readable: "io", writable: "io", thread: "thread",
};

export const CODE = { ABSENT: 0, READY: 1, RUNNING: 2, UNSURE: 3, BLOCKED: 16 };

export const colours = {};

export function stateName(code) {
  if (code >= CODE.BLOCKED) return REASONS[code - CODE.BLOCKED]?.name ?? String(code - CODE.BLOCKED);
  return ["", "runnable", "running", "unknown"][code] ?? "";
}

export function groupOf(reason) {
  return GROUPS[REASONS[reason]?.name] ?? "other";
}

/** Reads the colours of the theme that is on. */
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  for (const name of ["paper", "surface", "sunk", "line", "line-strong", "ink", "soft", "faint", "accent", "accent-soft", "bad", "running", "ready", "unsure",
    "on-running", "on-ready", "span", "span-ink", "region", "gc", "io", "busy", "band-gc", "band-stall", "band-pick", "hatch", "font", "mono"]) colours[name] = get(name);
  colours.reason = REASONS.map((_, i) => get(`r-${groupOf(i)}`));
  colours.state = new Array(256).fill(get("r-other"));
  colours.state[CODE.READY] = colours.ready;
  colours.state[CODE.RUNNING] = colours.running;
  colours.state[CODE.UNSURE] = colours.unsure;
  colours.reason.forEach((colour, i) => { colours.state[CODE.BLOCKED + i] = colour; });
  colours.packed = colours.state.map(packed);
}

/** A colour as ImageData holds it. */
function packed(colour) {
  const n = parseInt(colour.slice(1, 7), 16);
  return (0xff000000 | (n & 255) << 16 | (n >> 8 & 255) << 8 | n >> 16) >>> 0;
}

const KEY = "tracesvc.theme";

export function applyTheme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset.theme = chosen; else delete document.documentElement.dataset.theme;
  readColours();
}

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggleTheme() {
  localStorage.setItem(KEY, isDark() ? "light" : "dark");
  applyTheme();
  dispatchEvent(new Event("theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); dispatchEvent(new Event("theme")); });
