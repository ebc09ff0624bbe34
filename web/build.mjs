// dist/page: the demo, and the package as one file (m6rec.js), each with what it needs beside it.

import { copyFileSync, cpSync, mkdirSync } from "node:fs";
import { build } from "esbuild";

const page = "dist/page";
const runtime = "node_modules/onnxruntime-web/dist";

mkdirSync(page, { recursive: true });
await build({
    entryPoints: { m6rec: "dist/index.js", demo: "demo/demo.ts", offline: "demo/offline.ts" },
    outdir: page,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    conditions: ["onnxruntime-web-use-extern-wasm"],
    logLevel: "warning",
});
cpSync("demo/index.html", `${page}/index.html`);
cpSync("demo/demo.css", `${page}/demo.css`);
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
    copyFileSync(`${runtime}/${name}`, `${page}/${name}`);
}
