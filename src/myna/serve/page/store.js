// What this browser keeps: the conversation, the settings, the theme. Works, forgetting, where storage is off or full.

const KEY = "myna.chat";

export function load() {
  const empty = { messages: [], system: "", sampling: {}, model: "" };
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { ...empty, ...kept, messages: Array.isArray(kept.messages) ? kept.messages : [] };
  } catch {
    return empty;
  }
}

export function save(state) {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch { /* full or off: the page goes on */ }
}

/** The other theme than the one shown now, kept for next time. */
export function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("myna.theme", root.dataset.theme);
  } catch { /* as above */ }
}
