// The page's words, English and Chinese. A function makes a sentence with numbers in it.

const EN = {
  model: "Model", newChat: "New chat", theme: "Light or dark", settings: "Settings", close: "Close",
  conversation: "Conversation", welcome: "What would you like to know?",
  welcomeNote: "The model runs on this server. The conversation is kept in this browser only.",
  toEnd: "To the end", placeholder: "Write a message", send: "Send", stop: "Stop",
  hint: "Enter sends, Shift+Enter makes a new line, Esc stops.",
  system: "System prompt", systemPlaceholder: "Who should the model be?", sampling: "Sampling",
  samplingNote: "An empty field leaves the choice to the server; its value is shown in grey.",
  reset: "Use the server's values", about: "About this model",
  temperature: "Temperature", top_p: "Top p", top_k: "Top k", max_tokens: "Max tokens", seed: "Seed",
  asManyAsFit: "as many as fit", random: "random", context: "Context", tokensUnit: "tokens",
  you: "You", copy: "Copy", copied: "Copied", edit: "Edit", save: "Send again", cancel: "Cancel", regenerate: "Regenerate",
  retry: "Try again", thinking: "Thinking…", thought: "Reasoning", waiting: "Waiting for the first token",
  stopped: "stopped", lengthNote: "The answer was cut at the token limit.",
  callNote: name => `The model asks for the tool ${name}.`,
  cutNote: "The connection ended before the answer did.", emptyNote: "The answer is empty.",
  unreachable: "The server cannot be reached. Is it still running?",
  keyTitle: "This server asks for an API key", keyLabel: "API key", keyUse: "Use it",
  keyNote: "It is kept until this tab is closed, and sent to this server alone.",
  keyUnknown: "The server does not know this key.",
  failed: status => `The server answered ${status}.`,
  tokens: n => `${n} token${n === 1 ? "" : "s"}`, speed: n => `${n} tokens/s`, first: s => `first token after ${s} s`,
  prompt: (n, cached) => `prompt ${n}${cached ? `, ${cached} from cache` : ""}`,
};

const ZH = {
  model: "模型", newChat: "新对话", theme: "浅色或深色", settings: "设置", close: "关闭",
  conversation: "对话", welcome: "想了解些什么？",
  welcomeNote: "模型运行在这台服务器上，对话只保存在这个浏览器里。",
  toEnd: "到最后", placeholder: "输入消息", send: "发送", stop: "停止",
  hint: "Enter 发送，Shift+Enter 换行，Esc 停止。",
  system: "系统提示词", systemPlaceholder: "希望模型扮演什么角色？", sampling: "采样",
  samplingNote: "留空则由服务器决定，其数值以灰色显示。",
  reset: "恢复服务器的数值", about: "关于此模型",
  temperature: "温度", top_p: "Top p", top_k: "Top k", max_tokens: "最多 token 数", seed: "随机种子",
  asManyAsFit: "上下文上限", random: "随机", context: "上下文", tokensUnit: "token",
  you: "你", copy: "复制", copied: "已复制", edit: "编辑", save: "重新发送", cancel: "取消", regenerate: "重新生成",
  retry: "重试", thinking: "思考中…", thought: "思考过程", waiting: "正在等待第一个 token",
  stopped: "已停止", lengthNote: "回答达到 token 上限，已被截断。",
  callNote: name => `模型请求调用工具 ${name}。`,
  cutNote: "回答尚未结束，连接就断开了。", emptyNote: "回答为空。",
  unreachable: "无法连接服务器。它还在运行吗？",
  keyTitle: "此服务器需要 API 密钥", keyLabel: "API 密钥", keyUse: "使用",
  keyNote: "密钥只保留到关闭此标签页为止，也只发送给这台服务器。",
  keyUnknown: "服务器不认识这个密钥。",
  failed: status => `服务器返回了 ${status}。`,
  tokens: n => `${n} 个 token`, speed: n => `每秒 ${n} 个 token`, first: s => `首个 token 用时 ${s} 秒`,
  prompt: (n, cached) => `提示 ${n}${cached ? `，其中 ${cached} 来自缓存` : ""}`,
};

export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
const words = language === "zh-CN" ? ZH : EN;

export function t(key, ...values) {
  const word = words[key];
  return typeof word === "function" ? word(...values) : word;
}

/** Put the words into the static page: data-t the text, data-t-title, -label and -placeholder the attributes. */
export function translate(root) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-title]")) {
    element.title = t(element.dataset.tTitle);
    element.setAttribute("aria-label", element.title);
  }
  for (const element of root.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of root.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
}
