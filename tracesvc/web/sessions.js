// The list of sessions.

import { json, query } from "./api.js";
import { h, swap } from "./dom.js";
import { count, day, duration, size, words } from "./units.js";

const COLUMNS = [["source", "Program"], ["started", "Started"], ["length", "Length", 1], ["events", "Events", 1], ["lost", "Lost", 1], ["bytes", "Size", 1], ["state", "State"]];
const WIDE = new Set(["length", "bytes"]);
const REFRESH = 3000;

/** How far its times are from the service's; false: nothing tells. */
const clockOf = ({ clock }) => clock ? `By the service's clock ${duration(Math.abs(clock.offset))} ${clock.offset < 0 ? "earlier" : "later"}, ${clock.uncertainty === null ? "how certainly is not known" : `± ${duration(clock.uncertainty)}`}` : false;
export const lostOf = (info) => Object.values(info.lost).reduce((sum, n) => sum + n, 0);

export function markOf(state) {
  return h("span", { class: `mark ${state}` }, h("i", { "aria-hidden": "true" }), state);
}

export class Sessions {
  constructor(host, { commands } = {}) {
    this.host = host;
    this.sort = ["started", -1];
    this.filter = "";
    this.state = "";
    this.rows = null;
    this.next = null;
    this.commands = commands;
    this.body = h("tbody");
    this.heads = COLUMNS.map(([key, text, numeric]) => h("th", { class: `${numeric ? "num" : ""}${WIDE.has(key) ? " wide" : ""}`, scope: "col" }, h("button", { onclick: () => this.sortBy(key) }, text)));
    this.note = h("div", { class: "empty", hidden: true });
    this.more = h("button", { hidden: true, onclick: () => this.load(true) }, "Show older ones");
    const input = h("input", { type: "search", placeholder: "Filter by program, host or number", "aria-label": "Filter the sessions", oninput: () => { this.filter = input.value.trim().toLowerCase(); this.draw(); } });
    const states = h("select", { "aria-label": "State", onchange: () => { this.state = states.value; this.load(); } }, [["", "all states"], ["live", "live"], ["ended", "ended"], ["broken", "broken off"]].map(([value, text]) => h("option", { value }, text)));
    this.remote = h("div");
    swap(host, h("div", { class: "page" }, h("div", { class: "column" },
      h("div", { class: "title" }, h("div", {}, h("h1", {}, "Sessions"), this.count = h("p", {}, " ")), h("span", { class: "gap" }), h("div", { class: "tools" }, input, states)),
      this.remote,
      h("div", { class: "card" }, h("table", {}, h("thead", {}, h("tr", {}, this.heads)), this.body), this.note), h("div", {}, this.more))));
    this.load();
    this.timer = setInterval(() => { if (!document.hidden && this.rows && this.rows.length <= 100) this.load(); }, REFRESH);
    commands?.mount(this.remote);
  }

  close() { clearInterval(this.timer); this.closed = true; }

  async load(older = false) {
    try {
      const answer = await json(`v1/sessions${query({ limit: 100, state: this.state, cursor: older ? this.next : "" })}`);
      this.rows = older ? [...this.rows, ...answer.sessions] : answer.sessions;
      this.next = answer.next;
      this.trouble = "";
    } catch (error) {
      this.trouble = error.message;
    }
    if (!this.closed) this.draw();
  }

  sortBy(key) {
    this.sort = [key, this.sort[0] === key ? -this.sort[1] : key === "source" || key === "state" ? 1 : -1];
    this.draw();
  }

  value(info, key) {
    switch (key) {
      case "source": return (info.source.name ?? "").toLowerCase();
      case "lost": return lostOf(info);
      case "length": return info.updated - info.started;
      default: return info[key];
    }
  }

  draw() {
    const all = this.rows ?? [];
    const text = (info) => `${info.session} ${Object.values(info.source).join(" ")}`.toLowerCase();
    const shown = all.filter((info) => !this.filter || text(info).includes(this.filter));
    const [key, direction] = this.sort;
    shown.sort((a, b) => { const x = this.value(a, key), y = this.value(b, key); return (x < y ? -1 : x > y ? 1 : 0) * direction; });
    this.heads.forEach((head, i) => { if (COLUMNS[i][0] === key) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending"); else head.removeAttribute("aria-sort"); });
    const focused = document.activeElement?.closest?.("tr")?.dataset.session;
    swap(this.body, shown.map((info) => this.row(info)));
    if (focused) this.body.querySelector(`[data-session="${CSS.escape(focused)}"] a`)?.focus();
    const live = all.filter((info) => info.state === "live").length;
    this.count.textContent = this.trouble || (this.rows ? `${count(all.length)}${this.next ? "+" : ""} kept, ${count(live)} live` : " ");
    this.count.className = this.trouble ? "bad" : "";
    this.more.hidden = !this.next;
    this.note.hidden = !this.rows || shown.length > 0;
    if (!this.note.hidden) swap(this.note, all.length ? "No session is like that." : [h("p", {}, "No program has sent a trace yet. From a program:"), h("pre", {}, `import tracesvc\nfrom tracesvc.sinks.push import PushSink\n\nasync with tracesvc.open_tracer(PushSink("${location.origin}")):\n    ...`)]);
  }

  row(info) {
    const lost = lostOf(info), name = info.source.name || "(no name)";
    const open = `#/s/${info.session}`;
    return h("tr", { class: "go", "data-session": info.session, onclick: (event) => { if (!event.target.closest("a") && !getSelection().toString()) location.hash = open; } },
      h("td", {}, h("a", { href: open, class: "name clip", dir: "auto" }, name), h("div", { class: "faint clip" }, [info.source.host, info.source.pid ? `pid ${info.source.pid}` : "", info.session.slice(0, 8)].filter(Boolean).join("  "))),
      h("td", { class: "when", title: clockOf(info) }, day(info.started).slice(0, 10), " ", h("span", {}, day(info.started).slice(11))), h("td", { class: "num wide" }, duration(info.updated - info.started)), h("td", { class: "num" }, count(info.events)),
      h("td", { class: `num ${lost ? "bad" : "faint"}`, title: Object.entries(info.lost).filter(([, n]) => n).map(([cause, n]) => `${words(cause)}: ${count(n)}`).join(", ") || false }, lost ? count(lost) : "0"),
      h("td", { class: "num wide" }, size(info.bytes)), h("td", {}, markOf(info.state)));
  }
}
