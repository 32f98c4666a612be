// Markdown as DOM: headings, paragraphs, lists, tables, quotes, code. Model output is hostile text: everything is made
// with createElement and text nodes, so HTML in it is shown, never obeyed.

import { copyText } from "./clipboard.js";
import { inline } from "./inline.js";

const MAX_DEPTH = 12;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}>[ ]?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/**
 * Show `text` in `container`. Called again with more text, it rebuilds only the blocks that changed, so a stream does not
 * flicker and a selection in an earlier block stays.
 *
 * streaming   more may follow: what is begun (a fence, a table, bold) is shown as if it were finished
 * labels      {copy, copied}: the words on a code block's button
 */
export function update(container, text, { streaming = false, labels = { copy: "Copy", copied: "Copied" } } = {}) {
  const blocks = split(text.replaceAll("\r\n", "\n").split("\n"), streaming);
  const shown = container.shownBlocks ?? [];
  let same = 0;
  while (same < blocks.length && same < shown.length && blocks[same].key === shown[same]) same++;
  while (container.childNodes.length > same) container.lastChild.remove();
  for (const block of blocks.slice(same)) container.append(render(block, labels, 0));
  container.shownBlocks = blocks.map(block => block.key);
}

/** Cut lines into blocks. A block's `key` is what it was made of: the same key is the same DOM. */
function split(lines, open) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [block, end] = next(lines, at, open);
    const isOpen = open && end >= lines.length;
    blocks.push({ ...block, open: isOpen, key: `${isOpen ? "~" : "."}${lines.slice(at, end).join("\n")}` });
    at = end;
  }
  return blocks;
}

/** [the block that begins at line `at`, the line after it]. */
function next(lines, at, open) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at, open);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: heading[2] ?? "" }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (isTable(lines, at, open)) return table(lines, at);
  return paragraph(lines, at, open);
}

function fence(lines, at, open) {
  const [, mark, info] = FENCE.exec(lines[at]);
  const indent = lines[at].search(/\S/);
  const closing = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
  const body = [];
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) body.push(lines[end++].replace(new RegExp(`^ {0,${indent}}`), ""));
  // A closing fence that is still being typed is not code.
  if (open && end === lines.length && body.length && isBegun(body.at(-1), mark)) body.pop();
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text: body.join("\n") }, Math.min(end + 1, lines.length)];
}

function isBegun(line, mark) {
  const typed = line.trim();
  return typed.length > 0 && mark.startsWith(typed);
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && (QUOTE.test(lines[end]) || isLazy(lines, end))) end++;
  return [{ kind: "quote", lines: lines.slice(at, end).map(line => line.replace(QUOTE, "")) }, end];
}

/** A line that goes on with the paragraph before it though it lacks the mark or the indent. */
function isLazy(lines, at) {
  return lines[at].trim() !== "" && lines[at - 1]?.replace(QUOTE, "").trim() !== "" && !startsBlock(lines[at]);
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function list(lines, at) {
  const [, indent, marker] = ITEM.exec(lines[at]);
  const kind = marker.slice(-1);
  const items = [];
  let end = at, isLoose = false;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || found[2].slice(-1) !== kind || found[1].length > indent.length + 1 || RULE.test(lines[end])) break;
    const [item, after] = gather(lines, end, found[0].length);
    items.push(item);
    isLoose ||= after < lines.length && !lines[after - 1].trim() && ITEM.test(lines[after]);
    end = after;
  }
  return [{ kind: "list", start: parseInt(marker), isLoose, items }, end];
}

/** The lines of one item, without its indent: those that are indented past its marker, and blank ones between. */
function gather(lines, at, width) {
  const item = [lines[at].slice(width)];
  const indent = Math.min(width, lines[at].search(/\S/) + 2);
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    const depth = line.search(/\S/);
    if (depth >= 0 && depth < indent && (ITEM.test(line) || !isLazy(lines, end))) break;
    item.push(depth < 0 ? "" : line.slice(Math.min(depth, width)));
    end++;
  }
  return [item, end];
}

function isTable(lines, at, open) {
  if (!lines[at].includes("|")) return false;
  if (at + 1 === lines.length) return open && lines[at].trim().startsWith("|");
  const divider = lines[at + 1];
  if (open && at + 2 === lines.length && /^[\s|:-]*$/.test(divider)) return true;
  return divider.includes("-") && DIVIDER.test(divider) && cells(divider).length === cells(lines[at]).length;
}

function table(lines, at) {
  let end = Math.min(at + 2, lines.length);
  while (end < lines.length && lines[end].trim() && !startsBlock(lines[end])) end++;
  const align = cells(lines[at + 1] ?? "").map(cell => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  return [{ kind: "table", align, head: cells(lines[at]), rows: lines.slice(at + 2, end).map(cells) }, end];
}

/** A row's cells. \| and a bar inside code do not part them. */
function cells(line) {
  const found = [];
  let cell = "", ticks = false;
  const row = line.trim().replace(/^\|/, "");
  for (let i = 0; i < row.length; i++) {
    if (row[i] === "\\" && row[i + 1] === "|") cell += row[++i];
    else if (row[i] === "|" && !ticks) {
      found.push(cell.trim());
      cell = "";
    } else {
      if (row[i] === "`") ticks = !ticks && row.indexOf("`", i + 1) > 0;
      cell += row[i];
    }
  }
  return cell.trim() ? [...found, cell.trim()] : found;
}

function paragraph(lines, at, open) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines[end]) && !isTable(lines, end, open)) end++;
  const body = lines.slice(at, end).map(line => line.replace(/^\s+/, ""));
  if (open && end === lines.length && /^(`{1,2}|~{1,2}|#{1,6}|[-*+]|\d{1,9}[.)]?)$/.test(body.at(-1))) body.pop();
  return [{ kind: "paragraph", text: body.join("\n").trimEnd() }, end];
}

function render(block, labels, depth) {
  switch (block.kind) {
    case "code": return codeBlock(block, labels);
    case "heading": return element(`h${Math.min(block.level + 2, 6)}`, inline(block.text, block.open));
    case "rule": return element("hr", []);
    case "quote": return element("blockquote", nested(block.lines, block.open, labels, depth));
    case "list": return renderList(block, labels, depth);
    case "table": return renderTable(block);
    default: return element("p", inline(block.text, block.open));
  }
}

function nested(lines, open, labels, depth) {
  if (depth >= MAX_DEPTH) return [document.createTextNode(lines.join("\n"))];
  return split(lines, open).map(block => render(block, labels, depth + 1));
}

function renderList(block, labels, depth) {
  const items = block.items.map((lines, i) => {
    const isLast = i === block.items.length - 1;
    const nodes = nested(lines, block.open && isLast, labels, depth);
    // In a tight list the text of an item is not a paragraph.
    return element("li", block.isLoose ? nodes : nodes.flatMap(node => (isParagraph(node) ? [...node.childNodes] : [node])));
  });
  const made = element(Number.isNaN(block.start) ? "ul" : "ol", items);
  if (block.start > 1) made.setAttribute("start", String(block.start));
  return made;
}

function isParagraph(node) {
  return node.nodeName.toLowerCase() === "p";
}

function renderTable({ head, rows, align, open }) {
  const row = (texts, name) => element("tr", head.map((_, i) => {
    const cell = element(name, inline(texts[i] ?? "", open));
    if (align[i]) cell.setAttribute("class", align[i]);
    return cell;
  }));
  const made = element("table", [element("thead", [row(head, "th")]), element("tbody", rows.map(texts => row(texts, "td")))]);
  return element("div", [made], "table");
}

function codeBlock({ text, language }, labels) {
  const button = element("button", [document.createTextNode(labels.copy)], "copy");
  button.setAttribute("type", "button");
  button.addEventListener("click", async () => {
    await copyText(text);
    button.textContent = labels.copied;
    setTimeout(() => (button.textContent = labels.copy), 1500);
  });
  const label = element("span", [document.createTextNode(language)], "language");
  const code = element("code", [document.createTextNode(text)]);
  return element("figure", [element("figcaption", [label, button]), element("pre", [code])], "code");
}

function element(name, nodes, className) {
  const made = document.createElement(name);
  if (className) made.setAttribute("class", className);
  made.append(...nodes);
  return made;
}
