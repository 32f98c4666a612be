// The server's API: models, and an answer as it is made.

import { askForKey, keyHeader, KeyRefused } from "./key.js";
import { t } from "./words.js";

/** Those that chat. One that is not loaded yet does not say, and is among them. Throws as `answer` does. */
export async function models() {
  const response = await request("/v1/models", {});
  return (await response.json()).data.filter((model) => !model.capabilities || model.capabilities.includes("chat"));
}

/** Yields the stream's chunks. Throws an Error whose message is for the reader; AbortError when stopped; KeyRefused
    when the server asks for a key and none was given. */
export async function* answer(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body.getReader())) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
  throw new Error(t("cutNote"));
}

async function request(url, options) {
  for (;;) {
    const key = keyHeader();
    const response = await reach(url, { ...options, headers: { ...options.headers, ...key } });
    if (response.ok) return response;
    const message = await complaint(response);
    if (response.status !== 401) throw new Error(message);
    if (!(await askForKey(key))) throw new KeyRefused(message);
  }
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(t("unreachable"));
  }
}

async function complaint(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return t("failed", response.status);
  }
}

/** Server-sent events, whatever way the bytes are cut. Our server ends lines with \n. */
async function* events(reader) {
  const decoder = new TextDecoder();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      buffer += decoder.decode(value, { stream: true });
      const whole = buffer.split("\n\n");
      buffer = whole.pop();
      for (const event of whole) {
        if (event.startsWith("data: ")) yield event.slice(6);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(t("cutNote"));
  }
}
