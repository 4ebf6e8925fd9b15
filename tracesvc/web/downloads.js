// A session as a file: as it is, or in the format of another tool.

import { json, session as path } from "./api.js";
import { h } from "./dom.js";

export function downloads(app) {
  const button = h("button", { "aria-haspopup": "true", "aria-expanded": "false", onclick: () => (list.hidden ? show() : hide()) }, "Download");
  const list = h("div", { hidden: true });
  const menu = h("div", { class: "menu", onfocusout: (event) => { if (!menu.contains(event.relatedTarget)) hide(); }, onkeydown: (event) => { if (event.key === "Escape") { hide(); button.focus(); } } }, button, list);
  const hide = () => { list.hidden = true; button.setAttribute("aria-expanded", "false"); };
  const show = async () => {
    list.hidden = false;
    button.setAttribute("aria-expanded", "true");
    if (list.childNodes.length) return;
    const { name } = app.open, file = `${app.open.outline.source.name || "session"}-${name.slice(0, 8)}`.replace(/[^\w.-]+/g, "_");
    list.append(h("a", { href: path(name, "/frames"), download: `${file}.trace` }, "Trace", h("small", {}, "tracesvc")));
    list.querySelector("a").focus();
  };
  return menu;
}

export { json };
