// Ranks in this browser, beside the page, by the device folder that the service hands out. Its own policy allows
// WebAssembly, which the page's doesn't.

import { Device, type Manifest, type Ranked, type RankingInputs } from "m6rec-web";

/** What the page asks; one after another. */
export interface Order {
    folder: string;
    /** Name of the database of its items and their states; nothing of a user is written to it. */
    store: string;
    headers: Record<string, string>;
    inputs: RankingInputs;
}
/** What it is told: bytes while the folder comes, then the list or what went wrong. */
export type Told = { done: number; total: number } | { ranked: Ranked[]; manifest: Manifest; ms: number } | { error: string };

let device: Promise<Device> | undefined;

async function rank({ folder, store, headers, inputs }: Order): Promise<void> {
    const tell = (told: Told): void => postMessage(told);
    try {
        const progress = (done: number, total: number): void => tell({ done, total });
        device ??= Device.load(folder, { headers, progress, store });
        const opened = await device;
        const start = performance.now();
        const ranked = await opened.recommend(inputs);
        tell({ ranked, manifest: opened.manifest, ms: performance.now() - start });
    } catch (error) {
        if (device && (await device.catch(() => null)) === null) device = undefined; // the next order tries again
        tell({ error: error instanceof Error ? error.message : String(error) });
    }
}

addEventListener("message", ({ data }: MessageEvent<Order>) => void rank(data));
