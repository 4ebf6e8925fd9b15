import { h, swap } from "./dom.js";
export class Reports { constructor(host) { swap(host, h("div", { class: "reports" })); } close() {} }
