import { h, swap } from "./dom.js";
export class Diff { constructor(host) { swap(host, h("div", { class: "reports" })); } close() {} }
