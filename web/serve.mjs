// Serves folders on this machine with the headers that a page needs for threads and a strict policy.
//
//   node serve.mjs [--port 8400] [/PREFIX/=FOLDER …]
//
// Without folders it serves the demo page, and runs/phone as the device folder.

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";

const TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
};
const POLICY = [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "style-src 'self'",
    "connect-src 'self'",
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
].join("; ");
const HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
};

const here = import.meta.dirname;
const { values, positionals } = parseArgs({ options: { port: { type: "string", default: "8400" } }, allowPositionals: true });
const pairs = positionals.length ? positionals : [`/=${here}/dist/page`, `/phone/=${here}/../runs/phone`];
const folders = pairs.map((pair) => pair.split(/=(.*)/s, 2)).sort(([a], [b]) => b.length - a.length);

/** The file of a path, and its size; null for none. */
function find(path) {
    const [prefix, folder] = folders.find(([prefix]) => path.startsWith(prefix)) ?? [];
    if (!folder) return null;
    const rest = normalize(`/${path.slice(prefix.length)}`); // nothing above the folder
    const file = join(folder, rest.endsWith("/") ? `${rest}index.html` : rest);
    const found = statSync(file, { throwIfNoEntry: false });
    return found?.isFile() ? { file, size: found.size } : null;
}

const server = createServer((request, response) => {
    const found = find(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    if (!found || !["GET", "HEAD"].includes(request.method)) {
        response.writeHead(found ? 405 : 404, HEADERS).end();
        return;
    }
    const type = TYPES[extname(found.file)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
    if (request.method === "HEAD") response.end();
    else createReadStream(found.file).pipe(response);
});
server.listen(Number(values.port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
