/** The folder that `m6rec export` wrote: fetched once, verified whenever it is opened, kept for times without a network. */

import { AssetError, message } from "./errors.js";

/** Of the folder, of a bundle and of the database; another is refused. */
export const FORMAT = 3;
export const MANIFEST = "manifest.json";
export const TOKENIZER = "tokenizer.json";
export const LOWER = "lower.onnx";
export const UPPER = "upper.onnx";
export const ADAPTERS = "adapters.bin";
export const ITEMS = "items.safetensors";
const CACHE = "m6rec";
const AGAIN = "export it again, or copy it again";

/** What a device folder says of itself; see `m6rec.device.Manifest`. */
export interface Manifest {
    readonly format: number;
    readonly m6rec: string;
    readonly task: string;
    readonly domain: string;
    readonly foundation: string;
    readonly model: string;
    readonly tuning: string;
    /** Digest of what its task says of users and items. */
    readonly wording: string;
    /** Digest of its features; "" for a task without. */
    readonly features: string;
    readonly licence: string;
    readonly dtype: string;
    readonly depth: number;
    readonly keep: number;
    readonly width: number;
    /** Without `LOWER` and `TOKENIZER` the device reads no text itself, and ranks by the states that it is sent. */
    readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export type Progress = (done: number, total: number) => void;
/** Sent with each request for a file, such as a key. */
export type Headers = Readonly<Record<string, string>>;

/** A folder all of whose files are as they were written. */
export class Folder {
    private constructor(
        readonly manifest: Manifest,
        private readonly url: string,
        private readonly cache: Cache | null,
        /** Files that the browser has no room to keep. */
        private readonly held: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
    ) {}

    /**
     * Fetches the files that are not kept from an earlier visit, and verifies all. Where the server can't be reached, the
     * folder of the latest visit is opened. What is kept changes only when all of a newer folder is there.
     *
     * @throws AssetError It is no device folder, of another format, or damaged.
     */
    static async open(url: string, progress: Progress = () => undefined, headers: Headers = {}): Promise<Folder> {
        const base = new URL(url.endsWith("/") ? url : `${url}/`, globalThis.location.href).href;
        if (!globalThis.crypto?.subtle) {
            throw new AssetError(
                `${base} can't be verified: browsers give checksums to secure contexts alone; use https or localhost`,
            );
        }
        const cache = "caches" in globalThis ? await caches.open(CACHE).catch(() => null) : null;
        const manifestUrl = `${base}${MANIFEST}`;
        const text = await readManifest(manifestUrl, cache, headers);
        const manifest = parseManifest(manifestUrl, text);
        const total = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
        const held = new Map<string, Uint8Array<ArrayBuffer>>();
        let done = 0;
        for (const [name, file] of Object.entries(manifest.files)) {
            const bytes = await obtain(base, name, file, cache, headers, (part) => progress(done + part, total));
            if (bytes) held.set(name, bytes);
            progress((done += file.bytes), total);
        }
        if (cache) await settle(cache, base, manifestUrl, text, manifest);
        return new Folder(manifest, base, cache, held);
    }

    /** The bytes of a file. */
    async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
        const held = this.held.get(name);
        if (held) return held;
        const file = this.manifest.files[name];
        const kept = file && (await this.cache?.match(key(this.url, name, file.sha256)));
        if (!kept) throw new AssetError(`${name} of ${this.url} is no longer kept by the browser; load the page again`);
        return new Uint8Array(await kept.arrayBuffer());
    }
}

/** The sha256 of bytes, in hexadecimal. */
export async function digest(...parts: Uint8Array<ArrayBuffer>[]): Promise<string> {
    const hashed = await crypto.subtle.digest("SHA-256", parts.length === 1 ? parts[0]! : await new Blob(parts).arrayBuffer());
    return Array.from(new Uint8Array(hashed), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The name under which a file is kept; another version of it has another. */
function key(base: string, name: string, sha256: string): string {
    return `${base}${name}?sha256=${sha256}`;
}

async function readManifest(url: string, cache: Cache | null, headers: Headers): Promise<string> {
    let response: Response | undefined;
    try {
        response = await fetch(url, { cache: "no-store", headers });
    } catch (error) {
        response = await cache?.match(url);
        if (!response) {
            throw new AssetError(`${url} can't be reached (${message(error)}), and no earlier visit left a copy here`);
        }
    }
    if (!response.ok) throw new AssetError(`${url} can't be had: the server answers ${response.status}; ${AGAIN}`);
    return response.text();
}

function parseManifest(url: string, text: string): Manifest {
    let manifest: Manifest;
    try {
        manifest = JSON.parse(text) as Manifest;
        const numbers = [manifest.depth, manifest.keep, manifest.width, ...Object.values(manifest.files).map((file) => file.bytes)];
        const words = [manifest.task, manifest.model, ...Object.values(manifest.files).map((file) => file.sha256)];
        if (!numbers.every(Number.isSafeInteger)) throw new TypeError("a size is no whole number");
        if (!words.every((word) => typeof word === "string")) throw new TypeError("a name is no text");
    } catch (error) {
        throw new AssetError(`${url} is not the manifest of a device folder (${message(error)}); ${AGAIN}`);
    }
    if (manifest.format !== FORMAT) {
        throw new AssetError(
            `${url} has format ${manifest.format}, but this m6rec-web reads format ${FORMAT}; ` +
                "export it again with the m6rec of this package",
        );
    }
    const reads = TOKENIZER in manifest.files || LOWER in manifest.files;
    const missing = [UPPER, ...(reads ? [TOKENIZER, LOWER] : [])].filter((name) => !(name in manifest.files));
    if (missing.length) {
        throw new AssetError(`${url} is not the manifest of a device folder (it doesn't list ${missing.join(", ")}); ${AGAIN}`);
    }
    return manifest;
}

/** Has a verified file in the cache; its bytes where there is no room or no cache. */
async function obtain(
    base: string,
    name: string,
    file: { readonly bytes: number; readonly sha256: string },
    cache: Cache | null,
    headers: Headers,
    progress: (bytes: number) => void,
): Promise<Uint8Array<ArrayBuffer> | null> {
    const kept = await cache?.match(key(base, name, file.sha256));
    if (kept && (await wrong(new Uint8Array(await kept.arrayBuffer()), file)) === null) return null;
    let bytes: Uint8Array<ArrayBuffer>;
    try {
        const response = await fetch(`${base}${name}`, { cache: "no-store", headers });
        if (!response.ok) throw new Error(`the server answers ${response.status}`);
        bytes = await received(response, progress);
    } catch (error) {
        throw new AssetError(`${base}${name} can't be read (${message(error)}); ${AGAIN}`);
    }
    const fault = await wrong(bytes, file);
    if (fault) throw new AssetError(`${base}${name} ${fault}; ${AGAIN}`);
    try {
        if (!cache) return bytes;
        await cache.put(key(base, name, file.sha256), new Response(bytes));
        return null;
    } catch {
        return bytes;
    }
}

/** The body of a response; `progress` is told how much of it is there. */
async function received(response: Response, progress: (bytes: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let count = 0;
    const reader = response.body!.getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
        parts.push(read.value);
        progress((count += read.value.length));
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** What is wrong with the bytes of a file; null for nothing. */
async function wrong(bytes: Uint8Array<ArrayBuffer>, file: { bytes: number; sha256: string }): Promise<string | null> {
    if (bytes.length !== file.bytes) return `has ${bytes.length} bytes, but should have ${file.bytes}`;
    return (await digest(bytes)) === file.sha256 ? null : `is damaged: its sha256 is not that of ${MANIFEST}`;
}

/** Keeps the manifest, now that all its files are there, and drops files of an earlier one. */
async function settle(cache: Cache, base: string, manifestUrl: string, text: string, manifest: Manifest): Promise<void> {
    const current = new Set([manifestUrl, ...Object.entries(manifest.files).map(([name, file]) => key(base, name, file.sha256))]);
    try {
        await cache.put(manifestUrl, new Response(text));
    } catch {
        return; // no room: the next visit fetches what it needs
    }
    for (const request of await cache.keys()) {
        if (request.url.startsWith(base) && !current.has(request.url)) await cache.delete(request);
    }
}
