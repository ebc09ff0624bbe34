// dist/page: the demo, and the package as one file (m6rec.js), each with what it needs beside it.
// ../m6rec/serving/page: the page of `m6rec serve`, and in device/ what it loads to rank by itself.

import { copyFileSync, cpSync, mkdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const page = "dist/page";
const runtime = "node_modules/onnxruntime-web/dist";
const served = "../m6rec/serving/page";
const RUNTIME = ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const options = { bundle: true, minify: true, format: "esm", target: "es2022", logLevel: "warning" };

mkdirSync(page, { recursive: true });
await build({
    ...options,
    entryPoints: { m6rec: "dist/index.js", demo: "demo/demo.ts", offline: "demo/offline.ts" },
    outdir: page,
    conditions: ["onnxruntime-web-use-extern-wasm"],
});
cpSync("demo/index.html", `${page}/index.html`);
cpSync("demo/demo.css", `${page}/demo.css`);
for (const name of RUNTIME) copyFileSync(`${runtime}/${name}`, `${page}/${name}`);

rmSync(served, { recursive: true, force: true });
mkdirSync(`${served}/device`, { recursive: true });
await build({
    ...options,
    entryPoints: { main: "page/main.tsx", report: "page/report.ts", style: "page/style.css" },
    outdir: served,
    jsx: "automatic",
    jsxImportSource: "preact",
});
await build({
    ...options,
    entryPoints: { worker: "page/worker.ts" },
    outdir: `${served}/device`,
    conditions: ["onnxruntime-web-use-extern-wasm"],
});
for (const name of RUNTIME) copyFileSync(`${runtime}/${name}`, `${served}/device/${name}`);
for (const name of ["icon.svg", "report.html", "index.html"]) copyFileSync(`page/${name}`, `${served}/${name}`);
