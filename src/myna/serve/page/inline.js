// Markdown inside a paragraph: emphasis, code, links. Makes nodes with createElement and text nodes, never markup.

const MAX_DEPTH = 16;
const MAX_LINK = 4000; // characters: a thousand open brackets must not be searched to the end each
const PAIRS = [["***", ["strong", "em"]], ["**", ["strong"]], ["__", ["strong"]], ["~~", ["del"]], ["*", ["em"]], ["_", ["em"]]];
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
// Full-width punctuation ends a bare URL: Chinese writes no space before it.
const BARE_URL = /https?:\/\/[^\s<>"'`\u3001\u3002\u300a-\u300f\u201c\u201d\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]+/y;
const ANGLE_URL = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;

/** Nodes for `text`. `open` says that more may follow: emphasis not closed yet is shown as if it were. */
export function inline(text, open = false, depth = 0) {
  const scan = { text, open, depth, at: 0, plain: "", nodes: [], hopeless: new Set() };
  while (scan.at < text.length) {
    const node = depth < MAX_DEPTH && special(scan);
    if (node) {
      flush(scan);
      scan.nodes.push(...node);
    } else {
      scan.plain += text[scan.at++];
    }
  }
  flush(scan);
  return scan.nodes;
}

function flush(scan) {
  if (scan.plain) scan.nodes.push(document.createTextNode(scan.plain));
  scan.plain = "";
}

/** The nodes that begin at scan.at, moving it past them; null where plain text does. */
function special(scan) {
  switch (scan.text[scan.at]) {
    case "\\": return escaped(scan);
    case "\n": return scan.at++, [document.createElement("br")];
    case " ": return trailingSpaces(scan);
    case "`": return codeSpan(scan);
    case "!": return scan.text[scan.at + 1] === "[" ? link(scan, 1) : null;
    case "[": return link(scan, 0);
    case "<": return address(scan, ANGLE_URL);
    case "h": return address(scan, BARE_URL);
    case "*": case "_": case "~": return emphasis(scan);
    default: return null;
  }
}

function escaped(scan) {
  const next = scan.text[scan.at + 1];
  if (next === "\n") return scan.at += 2, [document.createElement("br")];
  if (!next || !PUNCTUATION.test(next)) return null;
  scan.at += 2;
  return [document.createTextNode(next)];
}

/** Spaces before a line break are not shown. */
function trailingSpaces(scan) {
  let end = scan.at;
  while (scan.text[end] === " ") end++;
  if (scan.text[end] !== "\n") return null;
  scan.at = end;
  return [];
}

function codeSpan(scan) {
  const { text, at } = scan;
  const ticks = runLength(text, at);
  let end = scan.hopeless.has(ticks) ? -1 : closingTicks(text, at + ticks, ticks);
  if (end < 0) {
    scan.hopeless.add(ticks);
    if (!scan.open || ticks > 2 || at + ticks >= text.length) return literal(scan, ticks);
    end = text.length;
  }
  const code = document.createElement("code");
  const inside = text.slice(at + ticks, end).replaceAll("\n", " ");
  code.textContent = /^ .*[^ ].* $|^ `|` $/.test(inside) ? inside.slice(1, -1) : inside;
  scan.at = end + ticks;
  return [code];
}

function closingTicks(text, from, ticks) {
  for (const run of text.slice(from).matchAll(/`+/g)) if (run[0].length === ticks) return from + run.index;
  return -1;
}

function literal(scan, length) {
  const node = document.createTextNode(scan.text.slice(scan.at, scan.at + length));
  scan.at += length;
  return [node];
}

function emphasis(scan) {
  const { text, at } = scan;
  const pair = PAIRS.find(([mark]) => text.startsWith(mark, at));
  if (!pair) return null;
  const [mark, names] = pair;
  const inner = at + mark.length;
  if (!canOpen(text, at, mark)) return literal(scan, mark.length);
  let end = scan.hopeless.has(mark) ? -1 : closingMark(text, inner, mark);
  if (end < 0) {
    scan.hopeless.add(mark);
    // A lone * or _ is more often itself than emphasis to come.
    if (!scan.open || mark.length === 1 || inner >= text.length) return literal(scan, mark.length);
    end = text.length;
  }
  scan.at = end + mark.length;
  let nodes = inline(text.slice(inner, end), scan.open, scan.depth + 1);
  for (const name of [...names].reverse()) {
    const element = document.createElement(name);
    element.append(...nodes);
    nodes = [element];
  }
  return nodes;
}

function canOpen(text, at, mark) {
  const next = text[at + mark.length];
  if (next !== undefined && /\s/.test(next)) return false;
  return mark[0] !== "_" || at === 0 || !WORD.test(text[at - 1]);
}

/** Where the emphasis ends: the mark, not after a space, not inside code, and for _ not inside a word. */
function closingMark(text, from, mark) {
  for (let i = from; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "`") {
      const ticks = runLength(text, i);
      const end = closingTicks(text, i + ticks, ticks);
      i = (end < 0 ? i : end) + ticks - 1;
    } else if (text[i] === mark[0]) {
      const run = runLength(text, i);
      if (i > from && closes(text, i, run, mark)) return i + run - mark.length;
      i += run - 1;
    }
  }
  return -1;
}

function closes(text, at, run, mark) {
  if (run < mark.length || /\s/.test(text[at - 1])) return false;
  if (mark.length === 1 && run === 2) return false; // the "**" in "*a **b** c*"
  return mark[0] !== "_" || !WORD.test(text[at + run] ?? "");
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end++;
  return end - at;
}

/** [text](url) and, `skip` past its mark, ![alt](url): an image is shown as a link, so that nothing is fetched. */
function link(scan, skip) {
  const { text, at } = scan;
  const close = closingBracket(text, at + skip, "[", "]");
  if (close < 0 || text[close + 1] !== "(") return null;
  const end = closingBracket(text, close + 1, "(", ")");
  if (end < 0 && !(scan.open && !/\s/.test(text.slice(close + 2)))) return null;
  const label = inline(text.slice(at + skip + 1, close), false, scan.depth + 1);
  const target = end < 0 ? "" : text.slice(close + 2, end).trim().replace(/\s+(".*"|'.*')$/s, "").replace(/^<(.*)>$/s, "$1");
  scan.at = end < 0 ? text.length : end + 1;
  return anchor(target, label.length ? label : [document.createTextNode(target)]);
}

function closingBracket(text, from, opening, closing) {
  let depth = 0;
  const last = Math.min(text.length, from + MAX_LINK);
  for (let i = from; i < last; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === opening) depth++;
    else if (text[i] === closing && --depth === 0) return i;
    else if (text[i] === "\n" && opening === "(") return -1;
  }
  return -1;
}

function address(scan, pattern) {
  pattern.lastIndex = scan.at;
  const match = pattern.exec(scan.text);
  if (!match || (pattern === BARE_URL && /\w/.test(scan.text[scan.at - 1] ?? ""))) return null;
  let found = match[0];
  if (pattern === BARE_URL) {
    found = found.replace(/[.,;:!?*_~\])}]+$/, tail => (tail === ")" && match[0].includes("(") ? tail : ""));
  }
  scan.at += found.length;
  const url = match[1] ?? found;
  return anchor(url, [document.createTextNode(url)]);
}

/** A link, if it goes to the web or to a mailbox; else only what it says. */
export function anchor(target, label) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return label;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return label;
  const element = document.createElement("a");
  element.setAttribute("href", url.href);
  element.setAttribute("rel", "noopener noreferrer nofollow");
  element.setAttribute("target", "_blank");
  element.append(...label);
  return [element];
}
