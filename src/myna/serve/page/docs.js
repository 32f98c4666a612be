// The API's page: /openapi.json as a list of endpoints that open. Everything is text nodes; nothing is parsed as HTML.

const DEEPEST = 6; // levels of a schema that are unfolded

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

class Schemas {
  constructor(named) {
    this.named = named;
  }

  follow(schema) {
    const name = schema.$ref?.split("/").pop();
    return name ? { name, ...this.named[name] } : schema;
  }

  // A schema in a few words: "string | null", "list of ChatChoice".
  words(schema) {
    const found = this.follow(schema);
    if (found.name && found.properties) return found.name;
    const branches = found.anyOf ?? found.oneOf;
    if (branches) return [...new Set(branches.map((one) => this.words(one)))].join(" | ");
    if ("const" in found) return JSON.stringify(found.const);
    if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
    if (found.type === "array") return `list of ${this.words(found.items ?? {})}`;
    return found.type ?? "anything";
  }

  // The objects a schema may be: itself, its branches, or the items of its lists.
  objects(schema) {
    const found = this.follow(schema);
    if (found.properties) return [found];
    if (found.items) return this.objects(found.items);
    return (found.anyOf ?? found.oneOf ?? []).flatMap((one) => this.objects(one));
  }

  draw(schema, depth = 0) {
    return this.objects(schema).map((found) => {
      const needed = new Set(found.required ?? []);
      const rows = Object.entries(found.properties).map(([name, field]) => this.row(name, field, needed.has(name), depth));
      const list = make("ul", "fields", ...rows);
      return found.description ? make("div", "", make("p", "", found.description), list) : list;
    });
  }

  row(name, field, needed, depth) {
    const words = make("span", "type", this.words(field));
    const line = make("span", "", make("code", "", name), words);
    if (needed) line.append(make("span", "required", "required"));
    const deeper = depth < DEEPEST && this.objects(field).length > 0;
    if (!deeper) return make("li", "", line);
    return make("li", "", lazily(make("summary", "", line), () => this.draw(field, depth + 1)));
  }
}

// A <details> whose inside is made when it is first opened: schemas may contain themselves.
function lazily(summary, inside) {
  const details = make("details", "", summary);
  details.addEventListener("toggle", () => details.append(make("div", "inside", ...inside())), { once: true });
  return details;
}

function endpoint(path, method, operation, schemas) {
  const title = make("span", "", operation.summary);
  const summary = make("summary", "", make("span", "method", method), make("code", "", path), title);
  return lazily(summary, () => {
    const parts = [];
    const body = operation.requestBody?.content["application/json"].schema;
    if (body) parts.push(make("h3", "", "Request"), ...schemas.draw(body));
    for (const [status, reply] of Object.entries(operation.responses)) {
      const kinds = Object.keys(reply.content);
      parts.push(make("h3", "", `${status === "default" ? "Error" : status}: ${kinds.join(" or ")}`));
      const json = reply.content["application/json"];
      if (json) parts.push(...schemas.draw(json.schema));
    }
    return parts;
  });
}

async function show() {
  const about = document.getElementById("about");
  try {
    const reply = await fetch("/openapi.json");
    if (!reply.ok) throw new Error(`/openapi.json: ${reply.status}`);
    const api = await reply.json();
    about.textContent = `${api.info.title} ${api.info.version}. ${api.info.description}`;
    const schemas = new Schemas(api.components.schemas);
    const rows = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => endpoint(path, method, operation, schemas)),
    );
    document.getElementById("api").append(...rows);
  } catch (error) {
    about.textContent = `The API's description cannot be read: ${error.message}`;
  }
}

show();
