// Numbers for people. Times are ns.

const UNITS = [[1, "ns"], [1e3, "µs"], [1e6, "ms"], [1e9, "s"], [60e9, "min"], [3600e9, "h"], [86400e9, "d"]];

/** 1.23 ms: three figures that matter. */
export function duration(ns) {
  if (!ns) return "0";
  const sign = ns < 0 ? "−" : "";
  let value = Math.abs(ns), unit = "ns";
  for (const [size, name] of UNITS) if (value >= size * 0.9995) unit = name, ns = value / size;
  if (unit === "ns") return `${sign}${Math.round(value)} ns`;
  return `${sign}${figures(ns)} ${unit}`;
}

function figures(value) {
  return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/** A point in time as the time since the beginning, as exact as a pixel of `step` ns needs it. */
export function instant(ns, step = 1) {
  const places = (unit) => Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / unit) - 1e-9)));
  const value = Math.abs(ns), sign = ns < 0 ? "−" : "";
  if (value >= 60e9 || step >= 60e9) {
    const whole = Math.floor(value / 1e9), days = Math.floor(whole / 86400);
    const two = (n) => String(n).padStart(2, "0");
    const rest = places(1e9) ? (value / 1e9 - whole).toFixed(places(1e9)).slice(1) : "";
    return `${sign}${days ? `${days}d ` : ""}${two(Math.floor(whole / 3600) % 24)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${rest}`;
  }
  const [size, unit] = value >= 1e9 || step >= 1e9 ? [1e9, "s"] : value >= 1e6 || step >= 1e6 ? [1e6, "ms"] : value >= 1e3 || step >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  return `${sign}${(value / size).toFixed(places(size))} ${unit}`;
}

/** A step of 1, 2 or 5 of a unit for ticks that are at least `least` ns apart. */
export function niceStep(least) {
  if (least > 30e9) {
    for (const s of [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400]) if (s * 1e9 >= least) return s * 1e9;
    return 86400e9 * 10 ** Math.ceil(Math.log10(least / 86400e9));
  }
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  for (const factor of [1, 2, 5, 10]) if (factor * power >= least) return factor * power;
  return power * 10;
}

export function count(n) {
  return Number(n).toLocaleString("en-US");
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (bytes >= 1000 && i < units.length - 1) bytes /= 1024, i++;
  return `${i ? figures(bytes) : bytes} ${units[i]}`;
}

export function percent(share) {
  return share === 0 ? "0 %" : share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

export function amount(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return count(value);
  const size = Math.abs(value);
  for (const [least, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) if (size >= least) return `${figures(value / least)} ${unit}`;
  return String(+value.toPrecision(4));
}

/** Time of day of ns since the epoch, as a BigInt. */
export function clock(wall, digits = 3) {
  const ms = Number(wall / 1_000_000n), date = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  const fraction = String(wall % 1_000_000_000n).padStart(9, "0").slice(0, digits);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${digits ? `.${fraction}` : ""}`;
}

export function day(ns) {
  const date = new Date(Number(ns) / 1e6), two = (n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** A long dotted name by its end, which tells one from the other. */
export function short(name, room = 26) {
  if (name.length <= room || !/^[\w.<>]+$/.test(name)) return name;
  const parts = name.split(".").filter((part) => part !== "<locals>");
  let text = parts.pop();
  while (parts.length && text.length + parts.at(-1).length < room) text = `${parts.pop()}.${text}`;
  return text;
}

export const words = (name) => name.replaceAll("_", " ");
