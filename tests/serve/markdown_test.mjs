// Runs the page's Markdown renderer on a DOM of forty lines. argv: the folder of the page. stdin: [[text, options], ...];
// stdout: for each the HTML that the nodes amount to. With {"pieces": [...]} the text arrives in those pieces, streaming;
// with "count_first_blocks" too, the answer is how many nodes the first block was in turn.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

class Text {
  constructor(text) {
    this.nodeName = "#text";
    this.textContent = text;
  }
  get html() {
    return this.textContent.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }
}

class Element {
  constructor(name) {
    Object.assign(this, { nodeName: name.toUpperCase(), childNodes: [], attributes: {} });
  }
  append(...nodes) {
    for (const node of nodes) {
      if (node.parent) node.remove();
      node.parent = this;
      this.childNodes.push(node);
    }
  }
  remove() {
    this.parent.childNodes = this.parent.childNodes.filter(node => node !== this);
  }
  get lastChild() {
    return this.childNodes.at(-1);
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  addEventListener() {}
  set textContent(text) {
    this.childNodes = [new Text(text)];
  }
  set innerHTML(_) {
    throw new Error("innerHTML is never used");
  }
  get html() {
    const name = this.nodeName.toLowerCase();
    const attributes = Object.entries(this.attributes).map(([key, value]) => ` ${key}="${value}"`);
    return `<${name}${attributes.join("")}>${this.childNodes.map(node => node.html).join("")}</${name}>`;
  }
}
Text.prototype.remove = Element.prototype.remove;

globalThis.document = { createElement: name => new Element(name), createTextNode: text => new Text(text) };
const { update } = await import(new URL("markdown.js", pathToFileURL(`${process.argv[2]}/`)));

function show([text, { pieces, count_first_blocks, ...options }]) {
  const container = new Element("div");
  const firsts = new Set();
  let sofar = "";
  for (const piece of pieces ?? []) {
    update(container, (sofar += piece), { ...options, streaming: true });
    firsts.add(container.childNodes[0]);
  }
  update(container, text, options);
  if (count_first_blocks) return String(firsts.add(container.childNodes[0]).size);
  return container.childNodes.map(node => node.html).join("");
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(show)));
