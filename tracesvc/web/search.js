// Search in names of tasks, spans and regions, and in messages.

import { ask, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { count, duration, instant } from "./units.js";

const TASKS = 40;

export class Search {
  constructor(app) {
    this.app = app;
    this.input = h("input", { type: "search", placeholder: "Search", "aria-label": "Search tasks, spans and messages", role: "combobox", "aria-expanded": "false", "aria-controls": "found", autocomplete: "off",
      oninput: () => this.soon(), onfocus: () => this.soon(), onkeydown: (event) => this.key(event) });
    this.list = h("div", { id: "found", role: "listbox", "aria-label": "Found", hidden: true });
    this.element = h("div", { class: "find", onfocusout: (event) => { if (!this.element.contains(event.relatedTarget)) this.hide(); } }, this.input, this.list);
  }

  focus() { this.input.focus(); this.input.select(); }
  hide() { this.list.hidden = true; this.input.setAttribute("aria-expanded", "false"); }

  soon() { clearTimeout(this.timer); this.timer = setTimeout(() => this.find(), 120); }

  async find() {
    const text = this.input.value.trim();
    if (!text) { this.hide(); return; }
    const { open } = this.app, { outline } = open, wanted = text.toLowerCase();
    const tasks = [];
    let total = 0;
    const { task, name, begin } = outline.tasks;
    for (let i = 0; i < task.length; i++) {
      if (String(task[i]) !== wanted && !outline.texts[name[i]].toLowerCase().includes(wanted)) continue;
      if (++total <= TASKS) tasks.push({ task: task[i], name: outline.texts[name[i]], begin: begin[i] });
    }
    let found = { spans: [], regions: [], messages: [], message_count: 0 };
    try { found = await ask(path(open.name, `/search${query({ text: text.slice(0, 200) })}`)); } catch { /* the tasks are there all the same */ }
    if (this.input.value.trim() !== text) return;
    const item = (label, note, go) => { const element = h("button", { class: "found", role: "option", "aria-selected": "false", tabindex: "-1", onclick: () => { this.hide(); go(); } }, h("span", { dir: "auto" }, label), h("small", {}, note)); return element; };
    const to = (params) => this.app.go("timeline", params);
    const part = (title, all, rows) => (rows.length ? h("div", { role: "group", "aria-label": `${title}, ${count(all)}` }, h("h3", { role: "presentation" }, `${title}, ${count(all)}`), ...rows) : null);
    this.list.setAttribute("role", "listbox");
    swap(this.list,
      part("Tasks", total, tasks.map((t) => item(t.name, `${t.task}  ${instant(t.begin, 1e6)}`, () => to({ task: t.task, time: Math.round(t.begin) })))),
      part("Spans", found.spans.length, found.spans.slice(0, 60).map((s) => item(s.name, `${duration(s.end - s.start)}  at ${instant(s.start, 1e6)}`, () => to({ span: s.id })))),
      part("Regions", found.regions.length, found.regions.slice(0, 60).map((r) => item(r.name, `${duration(r.end - r.start)}  at ${instant(r.start, 1e6)}`, () => to({ task: r.task, time: Math.round(r.start) })))),
      part("Messages", found.message_count, found.messages.slice(0, 60).map(([time, , message, by]) => item(message, instant(time, 1e6), () => to(by ? { task: by, time: Math.round(time) } : { from: Math.round(time - 1e6), to: Math.round(time + 1e6) })))));
    const any = this.list.childNodes.length > 0;
    if (!any) { this.list.setAttribute("role", "status"); swap(this.list, h("p", { class: "soft" }, "Nothing is called that")); }
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", any);
    this.mark(0);
  }

  mark(i) {
    const items = [...this.list.querySelectorAll(".found")];
    this.at = Math.min(Math.max(i, 0), items.length - 1);
    items.forEach((item, k) => { item.id = `found-${k}`; item.setAttribute("aria-selected", k === this.at); });
    if (items[this.at]) { this.input.setAttribute("aria-activedescendant", items[this.at].id); items[this.at].scrollIntoView({ block: "nearest" }); }
  }

  key(event) {
    const items = this.list.querySelectorAll(".found");
    if (event.key === "ArrowDown") this.mark(this.at + 1);
    else if (event.key === "ArrowUp") this.mark(this.at - 1);
    else if (event.key === "Enter" && items[this.at]) { items[this.at].click(); this.input.blur(); }
    else if (event.key === "Escape") this.hide();
    else return;
    event.preventDefault();
  }
}
