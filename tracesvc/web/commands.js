// Programs that wait for commands: start, stop, snapshot. Where the service knows none, nothing of it is shown.

import { json } from "./api.js";
import { announce, h, swap } from "./dom.js";
import { words } from "./units.js";

const REFRESH = 4000;

export class Commands {
  mount(host) {
    this.host = host;
    this.said = new Map();
    this.load();
    this.timer = setInterval(() => { if (!host.isConnected) clearInterval(this.timer); else if (!document.hidden) this.load(); }, REFRESH);
  }

  async load() {
    try { this.sources = (await json("v1/sources")).sources ?? []; } catch (error) {
      if (!error.status) return;  // the service is away: it is asked again
      this.sources = [];
      clearInterval(this.timer);
    }
    const key = JSON.stringify([this.sources, [...this.said]]);
    if (key !== this.drawn) { this.drawn = key; this.draw(); }
  }

  draw() {
    if (!this.sources.length) { swap(this.host); return; }
    swap(this.host, h("section", { class: "card", "aria-label": "Programs" }, h("h2", {}, "Programs"), h("table", {}, h("tbody", {}, this.sources.map((source) => this.row(source))))));
  }

  row({ source, agents }) {
    const recording = agents.filter((agent) => agent.session), said = this.said.get(source);
    const button = (text, deed, more = {}, off = false) => h("button", { disabled: off, "data-do": deed, onclick: (event) => this.send(source, deed, more, event.currentTarget) }, text);
    const who = agents.length === 1 ? [agents[0].host, agents[0].pid ? `pid ${agents[0].pid}` : ""].filter(Boolean).join("  ") : `${agents.length} processes`;
    return h("tr", { "data-source": source }, h("td", {}, h("span", { class: "name", dir: "auto" }, source), h("div", { class: "faint" }, who)),
      h("td", {}, recording.length ? h("span", { class: "mark live" }, h("i"), recording.length === 1 ? h("a", { href: `#/s/${recording[0].session}` }, "recording") : `${recording.length} record`) : h("span", { class: "mark" }, h("i"), "waits")),
      h("td", { class: "soft" }, said ?? ""),
      h("td", { class: "num" }, h("span", { class: "tools", style: { justifyContent: "flex-end" } }, button("Start", "start"), button("For 5 s", "start", { seconds: 5 }), button("Snapshot", "snapshot"), button("Stop", "stop", {}, !recording.length))));
  }

  async send(source, deed, more, button) {
    button.disabled = true;
    try {
      const { results } = await json(`v1/sources/${encodeURIComponent(source)}/commands`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ do: deed, ...more }) });
      const bad = results.filter((result) => !result.ok);
      this.said.set(source, bad.length ? `${words(deed)}: ${bad[0].error ?? "refused"}` : `${words(deed)}: done`);
    } catch (error) { this.said.set(source, error.message); }
    button.disabled = false;
    announce(this.said.get(source));
    this.load();
  }
}
