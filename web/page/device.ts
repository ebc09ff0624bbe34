// "On this device": a worker of this page that ranks in the browser, by the device folder that the service hands out.

import { signal } from "@preact/signals";
import type { Manifest, Ranked, RankingInputs } from "m6rec-web";
import { address, type Asked, rankingInputs, type Recommended, recommend } from "./api.ts";
import { key } from "./settings.ts";
import { createPolicy } from "./trusted.ts";
import type { Order, Told } from "./worker.ts";

/** Whether the list is ranked in this page; else the service ranks it. */
export const here = signal(false);
/** Bytes of the folder that have come, while it comes. */
export const coming = signal<{ done: number; total: number } | null>(null);

/** Which of its parts differs from what is served, so that the order may; "" for none. */
export type Other = "model" | "tuning" | "dtype" | "";
/** A list that was ranked here, beside the service's for the same request. */
export interface RankedHere extends Recommended {
    /** Places at which the service has another item. */
    differ: number;
    other: Other;
    dtype: string;
}

const STORE = "m6rec-page";
/** Where the runtime keeps files of the folder. */
const CACHE = "m6rec";
const EXACT = ["float32", "float16"];

const SCRIPT = address("page/device/worker.js");
const policy = createPolicy({ createScriptURL: (_: string) => SCRIPT });

let worker: Worker | undefined;
let turn: Promise<unknown> = Promise.resolve();

/** What the service would recommend without a spread, ranked here. */
export async function rankHere(asked: Asked, count: number, signal: AbortSignal): Promise<RankedHere> {
    const plain = { diversity: 0, calibration: 0 };
    const [inputs, served] = await Promise.all([rankingInputs(asked, signal), recommend(asked, count, plain, signal)]);
    const order: Order = {
        folder: address("v1/device/"),
        store: STORE,
        headers: key.value ? { Authorization: `Bearer ${key.value}` } : {},
        inputs,
    };
    const mine = turn.then(() => (signal.aborted ? Promise.reject(signal.reason) : answered(order)));
    turn = mine.catch(() => undefined);
    const { ranked, manifest, ms } = await mine;
    const items = ranked.slice(0, count).map(({ item, score }) => ({ item: { ...item, categories: [...item.categories] }, score }));
    const differ = items.filter(({ item }, place) => served.items[place]?.item.id !== item.id).length;
    return { items, differ, other: otherPart(inputs, manifest), dtype: manifest.dtype, timings_ms: { device: ms } };
}

/** Ends the worker, and with it the model's memory; the folder stays for the next time. */
export function leave(): void {
    here.value = false;
    stop();
}

function stop(): void {
    worker?.terminate();
    worker = undefined;
    turn = Promise.resolve();
    coming.value = null;
}

/** Removes all that was kept of the folder, too. */
export async function forget(): Promise<void> {
    leave();
    indexedDB.deleteDatabase(STORE);
    await globalThis.caches?.delete(CACHE);
}

function otherPart(inputs: RankingInputs, manifest: Manifest): Other {
    if (inputs.model !== manifest.model) return "model";
    if (inputs.tuning !== manifest.tuning) return "tuning";
    return EXACT.includes(manifest.dtype) ? "" : "dtype";
}

function answered(order: Order): Promise<{ ranked: Ranked[]; manifest: Manifest; ms: number }> {
    if (!worker) coming.value = { done: 0, total: 0 };
    const asked = (worker ??= new Worker(policy?.createScriptURL("") ?? SCRIPT, { type: "module" }));
    return new Promise((resolve, reject) => {
        const end = (): void => {
            coming.value = null;
            asked.onmessage = asked.onerror = null;
        };
        asked.onmessage = ({ data }: MessageEvent<Told>) => {
            if ("done" in data) {
                coming.value = data;
                return;
            }
            end();
            if ("error" in data) reject(new Error(data.error));
            else resolve(data);
        };
        asked.onerror = ({ message }) => {
            end();
            stop();
            reject(new Error(message || `${SCRIPT} can't be run`));
        };
        asked.postMessage(order);
    });
}
