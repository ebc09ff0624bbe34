/** Ranks the items of a device folder, by default the one at phone/, for whoever sits before this page. */

import { Device, M6recError, type Item } from "m6rec-web";

const SHOWN = 20;
const RANKED = 256;

const find = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const state = find<HTMLParagraphElement>("state");
const query = find<HTMLInputElement>("query");
const list = find<HTMLOListElement>("items");

/** Items whose title has the words of the search, those that the user hasn't met yet. */
function chosen(device: Device): string[] {
    const words = query.value.toLowerCase().split(/\s+/);
    const seen = new Set(device.history.map((event) => event.item));
    const fits = ({ id, title }: Item) => !seen.has(id) && words.every((word) => title.toLowerCase().includes(word));
    return [...device.items.values()].filter(fits).slice(0, RANKED).map((item) => item.id);
}

async function show(device: Device): Promise<void> {
    const items = chosen(device);
    const start = performance.now();
    const ranked = await device.rank(items);
    const spent = Math.round(performance.now() - start);
    state.textContent = `${items.length} of ${device.items.size} items by ${device.history.length} events, in ${spent} ms; all in this page`;
    list.replaceChildren(...ranked.slice(0, SHOWN).map(({ item, score }) => line(device, item, score)));
}

function line(device: Device, item: Item, score: number): HTMLLIElement {
    const entry = document.createElement("li");
    const likely = document.createElement("span");
    likely.textContent = ` ${score.toFixed(3)}`;
    entry.append(item.title, likely);
    for (const value of device.values(item.id)) {
        const button = document.createElement("button");
        button.textContent = String(value);
        button.addEventListener("click", () => {
            const event = { item: item.id, time: Math.floor(Date.now() / 1000), value };
            void device.ingest(event).then(() => show(device));
        });
        entry.append(button);
    }
    return entry;
}

async function start(): Promise<void> {
    const folder = new URLSearchParams(location.search).get("folder") ?? "phone/";
    try {
        if ("serviceWorker" in navigator) await navigator.serviceWorker.register("offline.js", { type: "module" });
        const progress = (done: number, total: number) => {
            state.textContent = `Loading: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
        };
        const device = await Device.load(folder, { progress });
        query.addEventListener("input", () => void show(device));
        find("forget").addEventListener("click", () => void device.forget().then(() => show(device)));
        await show(device);
    } catch (error) {
        state.textContent = error instanceof M6recError ? error.message : `This page fails: ${String(error)}`;
    }
}

void start();
