// The service's own HTTP API, as far as the page needs it (docs/api.md). Paths are relative to the page.

import { key, refused } from "./settings.ts";

export interface Item {
    id: string;
    title: string;
    categories: string[];
    details: Record<string, string | number>;
}
export interface Ranked {
    item: Item;
    score: number;
}
/** What someone did, as `history` of a request takes it. */
export interface HistoryEvent {
    item?: string;
    time?: number;
    value?: number;
    text?: string;
    kind?: string;
}
export interface StoredEvent extends HistoryEvent {
    item: string;
    time: number;
}
export interface User {
    id: string;
    details: Record<string, string | number>;
    events: StoredEvent[];
}
/** Whom a list is for. */
export interface Asked {
    user: string;
    history: HistoryEvent[];
    filters: { exclude: string[] };
}
export interface Spread {
    diversity: number;
    calibration: number;
}
export interface Recommended {
    items: Ranked[];
    timings_ms?: Record<string, number>;
}
export interface Reason {
    text: string;
    kind: string;
    source: "model" | "template";
}
export interface Segment {
    text: string;
    slot: string;
}
export interface Placement {
    filtered_by: string[];
    retrieved: boolean;
    retrieval_rank?: number;
    sources: { source: string; score: number; rank?: number }[];
    rank: number;
    num_ranked: number;
    score: number;
    base_score?: number;
}
export interface Inspection {
    segments: Segment[];
    placement?: Placement;
}

/** The service's own sentence about what went wrong. */
export class Problem extends Error {
    constructor(
        message: string,
        readonly type: string,
        readonly request = "",
    ) {
        super(message);
    }
}

/** Times that a request is sent again where the service is busy; it says when. */
const RETRIES = 3;

async function send<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, left = RETRIES): Promise<T> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key.value) headers["Authorization"] = `Bearer ${key.value}`;
    const request: RequestInit = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
    if (body !== undefined) request.body = JSON.stringify(body);
    if (signal) request.signal = signal;
    let answer: Response;
    try {
        answer = await fetch(path, request);
    } catch (error) {
        if (signal?.aborted) throw error;
        throw new Problem("", "unreachable");
    }
    if ((answer.status === 429 || answer.status === 503) && left) {
        await new Promise((done) => setTimeout(done, 1000 * Math.min(Number(answer.headers.get("Retry-After")) || 1, 5)));
        signal?.throwIfAborted();
        return send(method, path, body, signal, left - 1);
    }
    const told = await answer.json().catch(() => null);
    if (answer.ok) return told as T;
    if (answer.status === 401) refused.value = true;
    const problem = told?.error ?? {};
    throw new Problem(problem.message ?? `${answer.status}`, problem.type ?? "unknown", problem.request_id);
}

const where = (parameters: Record<string, string | number>): string =>
    Object.entries(parameters)
        .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
        .join("&");

export const recommend = (asked: Asked, count: number, spread: Spread, signal: AbortSignal): Promise<Recommended> =>
    send("POST", "v1/recommend", { ...asked, ...spread, count, timings: true }, signal);

export const retrieve = async (asked: Asked, source: "popular" | "text", count: number, signal: AbortSignal): Promise<Ranked[]> =>
    (await send<{ items: Ranked[] }>("POST", "v1/retrieve", { ...asked, source, count }, signal)).items;

export const explain = ({ user, history }: Asked, item: string, signal: AbortSignal): Promise<{ reasons: Reason[] }> =>
    send("POST", "v1/explain", { user, history, item }, signal);

export const inspect = (asked: Asked, item: string, signal: AbortSignal): Promise<Inspection> =>
    send("POST", "v1/inspect", { ...asked, item }, signal);

/** What is near an item, by its id, or near a draft, which is not stored. */
export const neighbours = async (item: string | Item, by: "text" | "behaviour", signal: AbortSignal): Promise<Ranked[]> =>
    (await send<{ items: Ranked[] }>("POST", "v1/neighbours", { item, by, count: 10 }, signal)).items;

export const findItems = async (query: string, signal?: AbortSignal): Promise<Item[]> =>
    (await send<{ items: Item[] }>("GET", `v1/items?${where({ query, count: 8 })}`, undefined, signal)).items;

export const findUsers = async (prefix: string, signal?: AbortSignal): Promise<string[]> =>
    (await send<{ users: string[] }>("GET", `v1/users?${where({ prefix, count: 8 })}`, undefined, signal)).users;

const AT_ONCE = 100;

/** Items by their ids; those that the catalogue hasn't are left out. */
export async function itemsOf(ids: string[], signal?: AbortSignal): Promise<Map<string, Item>> {
    const found = new Map<string, Item>();
    const wanted = [...new Set(ids)];
    for (let first = 0; first < wanted.length; first += AT_ONCE) {
        const some = wanted.slice(first, first + AT_ONCE).map((id) => `id=${encodeURIComponent(id)}`);
        const path = `v1/items?${some.join("&")}&count=${AT_ONCE}`;
        const { items } = await send<{ items: Item[] }>("GET", path, undefined, signal);
        for (const item of items) found.set(item.id, item);
    }
    return found;
}

export const getItem = (id: string, signal: AbortSignal): Promise<{ item: Item; num_likes?: number }> =>
    send("GET", `v1/items/${encodeURIComponent(id)}`, undefined, signal);

export const getUser = (id: string, signal?: AbortSignal): Promise<User> =>
    send("GET", `v1/users/${encodeURIComponent(id)}`, undefined, signal);

export const putItem = (item: Item): Promise<unknown> => send("POST", "v1/items", { items: [item] });
