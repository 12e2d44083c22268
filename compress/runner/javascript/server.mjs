// Serves a page on loopback, with the headers that threads need, and the files that a job names.

import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

// `ours` and `modules` are folders; `allowed` says of a path outside of them whether it may be read or written, `beside`
// gives the folder, if any, of files that a model card names. What is served is for the browser alone: it brings a
// cookie that nobody else knows. Gives the page's address and the cookie.
export async function serve({ ours, modules, allowed, beside = () => null }) {
  const key = crypto.randomUUID();
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    try {
      if (request.headers.cookie !== `key=${key}`) throw Object.assign(new Error("not for you"), { status: 403 });
      if (url.pathname === "/file") file(request, response, url.searchParams.get("path"), allowed);
      else if (url.pathname.startsWith("/modules/")) send(response, path.join(modules, url.pathname.slice(9)));
      else send(response, path.join(lies(ours, url.pathname) ? ours : (beside() ?? ours), url.pathname));
    } catch (error) {
      response.writeHead(error.status ?? 404, HEADERS).end(error.message);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, key };
}

function lies(folder, name) {
  return fs.existsSync(path.join(folder, name));
}

function file(request, response, name, allowed) {
  if (!allowed(name)) throw new Error(`${name} is no file of this job`);
  if (request.method !== "PUT") return send(response, name);
  request.pipe(fs.createWriteStream(name)).on("finish", () => response.writeHead(204, HEADERS).end());
}

function send(response, name) {
  const headers = { ...HEADERS, "Content-Type": TYPES[path.extname(name)] ?? "application/octet-stream" };
  headers["Content-Length"] = fs.statSync(name).size;
  response.writeHead(200, headers);
  fs.createReadStream(name).pipe(response);
}
