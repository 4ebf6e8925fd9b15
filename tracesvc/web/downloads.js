// A session as a file, as it is or in the format of another tool; or handed to Perfetto's own page.

import { query, request, session as path } from "./api.js";
import { announce, h, swap } from "./dom.js";
import { duration } from "./units.js";

const FORMATS = [
  ["perfetto", "Perfetto", ".pftrace"], ["chrome", "Chrome", ".json"], ["go", "Go trace", ".go.trace"], ["pprof", "pprof", ".pb.gz"], ["speedscope", "speedscope", ".json"],
  ["parquet", "Parquet", ".tar"], ["otlp", "OpenTelemetry", ".otlp"], ["ctf", "CTF", ".tar"], ["jsonl", "JSON lines", ".jsonl"], ["text", "Text", ".txt"],
];
const PERFETTO = "https://ui.perfetto.dev";

const fileOf = (open) => `${open.outline.source.name || "session"}-${open.name.slice(0, 8)}`.replace(/[^\w.-]+/g, "_");

/** Where the part of a session between two times (ns since its beginning) is to be had as a trace: what a link needs. */
export function partOf(open, start, end) {
  return { href: path(open.name, `/cut${query({ from: `@${open.at(start)}`, to: `@${open.at(end)}` })}`), download: `${fileOf(open)}.part.trace` };
}

export function downloads(app) {
  const list = h("div", { hidden: true });
  const button = h("button", { "aria-haspopup": "true", "aria-expanded": "false", onclick: () => (list.hidden ? show() : hide()) }, "Download");
  const menu = h("div", { class: "menu", onfocusout: (event) => { if (!menu.contains(event.relatedTarget)) hide(); }, onkeydown: (event) => move(event) }, button, list);
  const hide = () => { list.hidden = true; button.setAttribute("aria-expanded", "false"); };
  const show = () => {
    fill();
    list.hidden = false;
    button.setAttribute("aria-expanded", "true");
    list.querySelector("a, button").focus();
  };
  const move = (event) => {
    const items = [...list.querySelectorAll("a, button")], i = items.indexOf(document.activeElement);
    if (event.key === "Escape") { hide(); button.focus(); } else if (event.key === "ArrowDown") items[Math.min(i + 1, items.length - 1)]?.focus();
    else if (event.key === "ArrowUp") items[Math.max(i - 1, 0)]?.focus(); else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const fill = () => {
    const { name } = app.open, file = fileOf(app.open), t = app.view?.timeline;
    swap(list,
      h("a", { href: path(name, "/frames"), download: `${file}.trace` }, "Trace", h("small", {}, "as it is stored")),
      t && t.span < app.open.outline.ended ? h("a", partOf(app.open, t.start, t.end), "Trace, what is in view", h("small", {}, duration(t.span))) : null,
      h("h2", {}, "For other tools"), ...FORMATS.map(([format, text, suffix]) => h("a", { href: path(name, `/export/${format}`), download: file + suffix }, text, h("small", {}, suffix))),
      h("h2", {}, "Elsewhere"), h("button", { onclick: (event) => handOver(app, event.currentTarget) }, "Open in Perfetto", h("small", {}, new URL(PERFETTO).host)));
  };
  return menu;
}

/** As Perfetto's documentation describes it: open its page, PING until it answers PONG, then post the trace. */
async function handOver(app, button) {
  const { open } = app, note = button.querySelector("small");
  const page = window.open(PERFETTO);
  if (!page) { note.textContent = "the browser did not open a tab"; return; }
  note.textContent = "fetching the trace";
  let timer = 0, listener = null;
  try {
    const ready = new Promise((done, failed) => {
      listener = (event) => { if (event.source === page && event.origin === PERFETTO && event.data === "PONG") done(); };
      addEventListener("message", listener);
      const began = performance.now();
      timer = setInterval(() => { if (page.closed || performance.now() - began > 60_000) failed(new Error("its page does not answer")); else page.postMessage("PING", PERFETTO); }, 100);
    });
    ready.catch(() => {});
    const buffer = await (await request(path(open.name, "/export/perfetto"))).arrayBuffer();
    note.textContent = "waiting for the page";
    await ready;
    const title = `${open.outline.source.name || "trio"} ${open.name.slice(0, 8)}`;
    page.postMessage({ perfetto: { buffer, title, fileName: `${title}.pftrace` } }, PERFETTO, [buffer]);
    note.textContent = "handed over";
  } catch (error) { note.textContent = error.message; } finally {
    clearInterval(timer);
    removeEventListener("message", listener);
    announce(note.textContent);
  }
}
