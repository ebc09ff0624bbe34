/** Keeps the page itself for times without a network; the device folder is kept by the package. */

export {};

// The types of a worker and of a page can't be had at once.
interface Lasting {
    waitUntil(done: Promise<unknown>): void;
}
interface Fetching extends Lasting {
    readonly request: Request;
    respondWith(response: Promise<Response>): void;
}
const worker = self as unknown as {
    skipWaiting(): Promise<void>;
    clients: { claim(): Promise<void> };
    addEventListener(name: "install" | "activate", listener: (event: Lasting) => void): void;
    addEventListener(name: "fetch", listener: (event: Fetching) => void): void;
};

const CACHE = "m6rec-page";
const FILES = [
    "./",
    "demo.css",
    "demo.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
];

async function keep(): Promise<void> {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES);
    await worker.skipWaiting();
}

/** The network's answer, which is kept; without a network what was kept. */
async function answer(request: Request): Promise<Response> {
    const cache = await caches.open(CACHE);
    try {
        const response = await fetch(request);
        if (response.ok) await cache.put(request, response.clone());
        return response;
    } catch (error) {
        const kept = await cache.match(request, { ignoreSearch: true });
        if (kept) return kept;
        throw error;
    }
}

worker.addEventListener("install", (event) => event.waitUntil(keep()));
worker.addEventListener("activate", (event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener("fetch", (event) => {
    const own = FILES.some((file) => new URL(file, self.location.href).pathname === new URL(event.request.url).pathname);
    if (event.request.method === "GET" && own) event.respondWith(answer(event.request));
});
