import { h, swap } from "./dom.js";
export class Tail { constructor(host) { swap(host, h("div", { class: "tail" })); } close() {} }
