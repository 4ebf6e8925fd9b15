// Reports on a session: what it did in numbers, how long things took, what stood in the way, what is wrong.

import { ask, json, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { histogram } from "./histogram.js";
import { table } from "./tables.js";
import { amount, count, day, duration, instant, percent, size, words } from "./units.js";

const PARTS = [["summary", "Summary"], ["latency", "How long"], ["stalls", "Long steps"], ["lint", "Findings"]];
const KINDS = [["span", "Spans"], ["region", "Regions"], ["task", "Tasks"], ["step", "Steps"], ["queue", "In the run queue"], ["wait", "Waits"]];
const ns = (key, text, wide = false) => ({ key, text, num: true, show: duration, wide });
const number = (key, text, wide = false) => ({ key, text, num: true, show: count, wide });

export class Reports {
  constructor(host, app, params) {
    Object.assign(this, { host, app });
    this.open = app.open;
    this.restore(params);
  }

  close() { this.closed = true; }

  restore(params) {
    this.params = params;
    this.open.memory.reports = params;
    const part = PARTS.some(([key]) => key === params.get("of")) ? params.get("of") : "summary";
    this.content = h("div", { class: "pile" });
    const title = { summary: "Summary", latency: "How long things took", stalls: "Long steps, and whom they delayed", lint: "Findings" }[part];
    swap(this.host, h("div", { class: "reports" }, h("div", { class: "column" },
      h("div", { class: "title" }, h("h1", {}, title), h("span", { class: "gap" }), h("nav", { class: "tabs", "aria-label": "Reports" }, PARTS.map(([key, text]) => h("a", { href: this.address(key), "aria-current": key === part ? "page" : false, "data-report": key }, text)))), this.content)));
    this.draw(part);
    return true;
  }

  address(of, more = {}) { return `#/s/${encodeURIComponent(this.open.name)}/reports${query({ of, ...more })}`; }
  rel(time) { return Number(BigInt(time) - this.open.outline.began); }
  to(params) { this.app.go("timeline", params); }
  toTime(task, time, length) { const pad = Math.max(length * 0.6, 1000); this.to({ task, time: Math.round(time), from: Math.floor(Math.max(0, time - pad)), to: Math.ceil(time + length + pad) }); }

  async draw(part) {
    const content = this.content;
    swap(content, h("div", { class: "card empty" }, "Reading the session"));
    try {
      const made = await this[part]();
      if (!this.closed && content === this.content) swap(content, made);
    } catch (error) {
      if (!this.closed && content === this.content) swap(content, h("div", { class: "card empty" }, h("p", {}, error.message)));
    }
  }

  card(title, ...content) { return h("section", { class: "card" }, h("h2", {}, title), content); }

  // --- summary ---------------------------------------------------------------------------------------

  async summary() {
    const s = await json(path(this.open.name, "/summary"));
    const fact = (text, value, bad) => h("div", {}, h("span", {}, text), h("strong", { class: bad ? "bad" : "", "data-fact": text }, value));
    const rows = (map, make) => Object.entries(map).map(([name, one]) => ({ name, ...make(one) }));
    const durations = (one) => ({ count: one.count, open: one.open, ...one.durations, count: one.count });
    const parts = [h("div", { class: "facts" }, fact("Length", duration(s.duration)), fact("Events", count(s.events)), fact("Lost", count(s.lost), s.lost), fact("Loop busy", percent(s.loop.busy)),
      fact("Worst lag", duration(s.loop.lag)), fact("Collecting garbage", duration(s.gc.total)), fact("Stored", size(s.bytes)), fact("Began at", s.started ? day(s.started).slice(11) : "not known"))];
    const tasks = rows(s.tasks, (t) => ({ count: t.count, live: t.live, running: t.running, runnable: t.runnable, waiting: Object.values(t.blocked).reduce((a, b) => a + b, 0), steps: t.steps, longest: t.longest?.duration ?? 0, step: t.longest,
      most: Object.entries(t.blocked).sort((a, b) => b[1] - a[1])[0]?.[0] ?? "" }));
    parts.push(this.card("Tasks, by name", table([{ key: "name", text: "Task", show: (v) => h("span", { class: "clip" }, v) }, number("count", "Count"), number("live", "Live", true), ns("running", "Running"), ns("runnable", "Runnable"), ns("waiting", "Waiting", true), { key: "most", text: "mostly for", show: words, wide: true }, number("steps", "Steps", true), ns("longest", "Longest step")], tasks,
      { sort: ["running", -1], label: "Tasks", go: (row) => (row.step ? this.toTime(row.step.task, this.rel(row.step.time), row.step.duration) : null) })));
    for (const [title, key, kind] of [["Spans", "spans", "span"], ["Regions", "regions", "region"]]) {
      if (!Object.keys(s[key]).length) continue;
      parts.push(this.card(title, table([{ key: "name", text: title.slice(0, -1) }, number("count", "Count"), number("open", "Open", true), ns("total", "Total", true), ns("p50", "p50"), ns("p90", "p90", true), ns("p99", "p99"), ns("max", "Max")], rows(s[key], durations), { sort: ["p99", -1], label: title, go: (row) => { location.hash = this.address("latency", { kind, name: row.name }); } })));
    }
    const two = [];
    const loops = rows(s.loops, (l) => l).map((l) => ({ ...l, run: l.name }));
    two.push(this.card("Run loops", table([{ key: "run", text: "Run" }, { key: "busy", text: "Busy", num: true, show: percent }, ns("io_wait", "I/O wait"), ns("lag", "Worst lag"), number("queue", "Queue")], loops, { label: "Run loops" })));
    if (Object.keys(s.threads).length) two.push(this.card("Calls in threads", table([{ key: "name", text: "Function" }, number("count", "Count"), ns("total", "Total"), ns("max", "Max")], rows(s.threads, (t) => t), { sort: ["total", -1], label: "Calls in threads" })));
    if (Object.keys(s.counters).length) two.push(this.card("Counters", table([{ key: "name", text: "Counter" }, ...["last", "min", "max"].map((key) => ({ key, text: key, num: true, show: (v, row) => (row.name === "trio.loop_lag" ? duration(v) : amount(v)) }))], rows(s.counters, (c) => c), { label: "Counters" })));
    if (Object.keys(s.losses).length) two.push(this.card("Losses", table([{ key: "name", text: "Cause", show: words }, number("events", "Events"), number("count", "Times")], rows(s.losses, (l) => l), { label: "Losses", go: (row) => { const i = row.intervals[0]; this.to({ from: Math.floor(this.rel(i.start) - 1e6), to: Math.ceil(this.rel(i.end) + 1e6) }); } })));
    if (s.logs.last.length) two.push(this.card("Last messages", h("table", {}, h("tbody", {}, s.logs.last.map((m) => h("tr", {}, h("td", { class: "faint num" }, instant(this.rel(m.time), 1e6)), h("td", { dir: "auto" }, m.message, m.attributes ? h("span", { class: "faint" }, ` ${JSON.stringify(m.attributes)}`) : "")))))));
    parts.push(h("div", { class: "two" }, two));
    parts.push(await this.compare().catch(() => null));  // the summary is there all the same
    return parts;
  }

  async compare() {
    const { sessions } = await json(`v1/sessions${query({ limit: 50 })}`);
    const others = sessions.filter((s) => s.session !== this.open.name && s.events);
    if (!others.length) return null;
    const choice = h("select", { "aria-label": "The session before" }, others.map((s) => h("option", { value: s.session }, `${s.source.name ?? "(no name)"}  ${day(s.started)}  ${count(s.events)} events`)));
    return this.card("Compare with an earlier session", h("p", { class: "tools" }, choice, h("button", { onclick: () => { location.hash = `#/diff/${choice.value}/${this.open.name}`; } }, "Compare")));
  }

  // --- how long --------------------------------------------------------------------------------------

  async latency() {
    this.histograms ??= (await json(path(this.open.name, "/latency"))).histograms;
    const kinds = KINDS.filter(([key]) => Object.keys(this.histograms[key] ?? {}).length);
    if (!kinds.length) return h("div", { class: "card empty" }, "Nothing in this session has a beginning and an end.");
    const kind = kinds.some(([key]) => key === this.params.get("kind")) ? this.params.get("kind") : kinds[0][0];
    const all = this.histograms[kind], rows = Object.entries(all).map(([name, one]) => ({ name, ...one })), first = [...rows].sort((a, b) => b.total - a.total)[0].name;
    const name = all[this.params.get("name")] ? this.params.get("name") : first;
    const slowest = h("div"), wait = kind === "wait";
    const show = async (low, high) => {
      const progress = (share) => swap(slowest, h("p", { class: "soft", style: { padding: "0 12px 12px" } }, `The session is being indexed: ${Math.floor(share * 100)} %`));
      const found = await ask(path(this.open.name, `/instances${query({ kind, name, low, high })}`), { progress }).catch((error) => ({ error }));
      if (found.error) { swap(slowest, h("p", { class: "bad", style: { padding: "0 12px 12px" } }, found.error.message)); return; }
      const title = low === undefined ? `The slowest of ${count(found.count)}` : `${count(found.count)} of ${duration(low)} to ${duration(high)}, the slowest first`;
      swap(slowest, h("h3", { style: { padding: "0 12px" } }, title), table([{ key: "took", text: "Took", num: false, show: duration }, { key: "start", text: "At", num: true, show: (v) => instant(v, 1e3) }, { key: "who", text: "Task" }],
        found.found.map((one) => ({ ...one, took: one.end - one.start, who: this.open.outline.name(one.task) })), { sort: ["took", -1], label: "Instances", go: (one) => { const length = one.end - one.start, pad = Math.max(length * 0.4, 1000); this.to({ ...(kind === "span" ? { span: one.id } : { task: one.task, time: one.start }), from: Math.floor(Math.max(0, one.start - pad)), to: Math.ceil(one.end + pad) }); } }));
    };
    const tabs = h("nav", { class: "subtabs", "aria-label": "Kinds" }, kinds.map(([key, text]) => h("a", { class: `button${key === kind ? " on" : ""}`, href: this.address("latency", { kind: key }), "aria-current": key === kind ? "true" : false }, text)));
    const list = table([{ key: "name", text: wait ? "For" : "Name", show: (v) => h("span", { class: "clip" }, wait ? words(v) : v) }, number("count", "Count"), ns("p50", "p50"), ns("p99", "p99"), ns("max", "Max")], rows, { sort: ["total", -1], label: "Names", mark: (row) => row.name === name, go: (row) => { location.hash = this.address("latency", { kind, name: row.name }); } });
    show();
    return [tabs, h("div", { class: "two" }, h("section", { class: "card" }, list), h("section", { class: "card" }, h("h2", { dir: "auto" }, wait ? words(name) : name), h("div", { style: { padding: "0 12px 12px" } }, histogram(all[name], show)), slowest))];
  }

  // --- long steps ------------------------------------------------------------------------------------

  async stalls() {
    const found = await json(path(this.open.name, `/stalls${query({ most: 200 })}`));
    if (!found.count) return h("div", { class: "card empty" }, `No step took ${duration(found.threshold)} or longer.`);
    const rows = found.stalls.map((s) => ({ ...s, at: this.rel(s.start) }));
    return [h("p", { class: "soft" }, `${count(found.count)} step${found.count === 1 ? "" : "s"} took ${duration(found.threshold)} or longer, ${duration(found.total)} in all.${found.gaps ? ` Events are missing in ${count(found.gaps)} places: steps there are not known.` : ""}`),
      h("div", { class: "card" }, table([{ key: "name", text: "Task", show: (v) => h("span", { class: "clip" }, v) }, ns("duration", "Took"), { key: "at", text: "At", num: true, show: (v) => instant(v, 1e6) }, number("count", "Delayed"), ns("delay", "Together", true), ns("collections", "Of it collecting", true), { key: "place", text: "What ran", wide: true }], rows, { sort: ["duration", -1], label: "Long steps", go: (row) => this.toTime(row.task, row.at, row.duration) }))];
  }

  // --- findings --------------------------------------------------------------------------------------

  async lint() {
    const found = await json(path(this.open.name, "/lint"));
    const notes = (found.notes ?? []).map((note) => h("p", { class: "soft" }, note));
    if (!found.findings.length) return [h("div", { class: "card empty" }, "Nothing that a trace shows by itself is wrong here."), notes];
    return [h("div", { class: "card" }, found.findings.map((finding) => h("div", { class: "finding" },
      h("span", { class: `tag ${finding.severity ?? "warning"}` }, words(finding.code)),
      h("div", {}, h("div", { dir: "auto" }, finding.text), finding.names.length ? h("div", { class: "faint clip", dir: "auto" }, finding.names.join(", ")) : null),
      this.findingLink(finding)))), notes];
  }

  findingLink(finding) {
    const [task] = finding.tasks, time = Math.max(0, this.rel(finding.start)), end = Math.max(time, this.rel(finding.end)), pad = Math.max((end - time) * 0.3, 1e5);
    return h("button", { onclick: () => this.to({ ...(task ? { task, time: Math.round(time) } : {}), from: Math.floor(Math.max(0, time - pad)), to: Math.ceil(end + pad) }) }, "show");
  }
}
