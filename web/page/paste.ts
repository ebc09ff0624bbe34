// A history as people have it: lines of items, or the events of the HTTP API as JSON.

import { findItems, type HistoryEvent, type Item, itemsOf } from "./api.ts";
import type { Told } from "./state.ts";

/** Lines that are looked for by their title, one request each. */
const MOST_TITLES = 50;

export interface Pasted {
    history: Told[];
    /** Lines that name nothing in the catalogue. */
    unknown: string[];
}

export async function paste(text: string): Promise<Pasted> {
    const trimmed = text.trim();
    return trimmed.startsWith("[") || trimmed.startsWith("{") ? events(trimmed) : lines(trimmed);
}

async function events(text: string): Promise<Pasted> {
    const parsed: unknown = JSON.parse(text);
    const list = Array.isArray(parsed) ? parsed : ((parsed as { events?: unknown; history?: unknown }).events ?? (parsed as { history?: unknown }).history);
    if (!Array.isArray(list)) throw new SyntaxError("no list of events");
    const history = list.map(({ item, time, value, text: said, kind }: HistoryEvent) => {
        const event: HistoryEvent = {};
        if (item) event.item = String(item);
        if (time) event.time = time;
        if (value != null) event.value = Number(value);
        if (said) event.text = String(said);
        if (kind) event.kind = String(kind);
        return event;
    });
    const titles = await itemsOf(history.flatMap(({ item }) => item ?? []));
    const known = history.filter(({ item, kind }) => (item ? titles.has(item) : kind === "search"));
    return {
        history: known.map((event) => ({ event, title: titles.get(event.item ?? "")?.title ?? event.text ?? "" })),
        unknown: history.flatMap(({ item }) => (item && !titles.has(item) ? item : [])),
    };
}

async function lines(text: string): Promise<Pasted> {
    const rows = text.split(/\r?\n/).flatMap((line) => {
        const [name = "", rating = ""] = line.split(/\t|\|/).map((part) => part.trim());
        return name ? [{ name, rating }] : [];
    });
    const byId = await itemsOf(rows.map(({ name }) => name));
    const history: Told[] = [];
    const unknown: string[] = [];
    let titles = 0;
    for (const { name, rating } of rows) {
        let item: Item | undefined = byId.get(name);
        if (!item && titles++ < MOST_TITLES) {
            const found = await findItems(name);
            item = found.find(({ title }) => title.toLowerCase() === name.toLowerCase()) ?? found[0];
        }
        if (!item) unknown.push(name);
        else {
            const event: HistoryEvent = { item: item.id };
            const value = Number(rating);
            if (rating && Number.isFinite(value)) event.value = value;
            else event.kind = rating || "like";
            history.push({ event, title: item.title });
        }
    }
    return { history, unknown };
}
