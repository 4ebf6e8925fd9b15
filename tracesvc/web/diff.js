// Two sessions side by side: what became slower, what quicker, what there is only in one.

import { json, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { table } from "./tables.js";
import { count, day, duration, words } from "./units.js";

export class Diff {
  constructor(host, before, after) {
    Object.assign(this, { host, before, after });
    document.title = "Comparison · tracesvc";
    this.content = h("div", { class: "column" }, h("div", { class: "card empty" }, "Reading both sessions"));
    swap(host, h("div", { class: "reports" }, this.content));
    this.draw();
  }

  close() { this.closed = true; }

  async draw() {
    try {
      const [found, before, after] = await Promise.all([json(path(this.after, `/diff${query({ before: this.before })}`)), json(path(this.before)), json(path(this.after))]);
      if (!this.closed) this.show(found, before, after);
    } catch (error) { swap(this.content, h("div", { class: "card empty" }, h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All sessions")))); }
  }

  show(found, before, after) {
    const side = (title, info) => h("div", {}, h("span", {}, title), h("strong", {}, h("a", { href: `#/s/${info.session}` }, info.source.name ?? "(no name)")), h("span", {}, `${day(info.started)}, ${count(info.events)} events`));
    const count_ = (verdict) => found.changes.filter((c) => c.verdict === verdict).length;
    const rows = found.changes.map((c) => ({ ...c, what: `${words(c.kind)} ${c.name}`, n: c.counts[1], n0: c.counts[0] }));
    const figure = (value, row) => (row.figure === "count" || row.figure === "live" ? count(value) : row.figure === "busy" || row.figure === "share" ? `${(100 * value).toFixed(1)} %` : duration(value));
    const only = (map) => Object.entries(map).flatMap(([kind, names]) => names.map((name) => ({ kind, name })));
    let shown = "changed";
    const list = h("div", { class: "card" });
    const draw = () => swap(list, table([{ key: "name", text: "Name", show: (v) => h("span", { class: "clip" }, v) }, { key: "kind", text: "What", show: words }, { key: "figure", text: "Figure", wide: true }, { key: "before", text: "Before", num: true, show: figure }, { key: "after", text: "After", num: true, show: figure },
      { key: "ratio", text: "Ratio", num: true, show: (v, row) => h("span", { class: { slower: "worse", faster: "better" }[row.verdict] ?? "faint" }, v === null || v === undefined ? "" : `${v.toFixed(2)} ×`) }, { key: "n0", text: "Count before", num: true, show: count, wide: true }, { key: "n", text: "after", num: true, show: count, wide: true }, { key: "verdict", text: "Verdict", show: (v) => (v === "few" ? "too few to tell" : v) }],
    shown === "all" ? rows : rows.filter((row) => row.verdict === "slower" || row.verdict === "faster"), { sort: ["ratio", -1], label: "Changes", go: (row) => { if (["span", "region", "task", "step", "wait", "queue"].includes(row.kind)) location.hash = `#/s/${this.after}/reports${query({ of: "latency", kind: row.kind, name: row.name })}`; } }));
    const choose = h("select", { "aria-label": "Which", onchange: () => { shown = choose.value; draw(); } }, h("option", { value: "changed" }, "what changed"), h("option", { value: "all" }, "everything"));
    if (!(count_("slower") + count_("faster"))) choose.value = shown = "all";
    draw();
    swap(this.content,
      h("div", { class: "title" }, h("div", {}, h("h1", {}, "Two sessions"), h("p", { "data-verdict": found.verdict }, rows.length ? `${words(found.verdict)}: ${count(count_("slower"))} slower, ${count(count_("faster"))} faster, ${count(count_("same"))} the same` : "nothing to compare")), h("span", { class: "gap" }), h("div", { class: "tools" }, choose, h("button", { onclick: () => { location.hash = `#/diff/${this.after}/${this.before}`; } }, "The other way round"))),
      h("div", { class: "facts" }, side("Before", before), side("After", after)),
      count_("slower") + count_("faster") ? null : h("p", { class: "soft", "data-nothing": true }, rows.length ? `Nothing changed by more than a factor of ${found.thresholds.ratio} and ${duration(found.thresholds.time)}.` : "They have nothing in common that could be compared."), rows.length ? list : null,
      [["Only before", found.only_before], ["Only after", found.only_after]].map(([title, map]) => (only(map).length ? h("div", { class: "card" }, h("h2", {}, title), table([{ key: "name", text: "Name" }, { key: "kind", text: "What", show: words }], only(map), { label: title })) : null)));
  }
}
