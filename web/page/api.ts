// The service's own HTTP API, as far as the page needs it (docs/api.md). Paths are those of the service, wherever it is.

import type { RankingInputs } from "m6rec-web";
import { key, refused } from "./settings.ts";

export interface Item {
    id: string;
    title: string;
    categories: readonly string[];
    details: Readonly<Record<string, string | number>>;
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
    filters: { exclude: string[]; exclude_categories: string[] };
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
    /** Where its state was before it was asked for. */
    cached: "context" | "memory" | "store" | "absent";
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

/** That of a path of the service: this script lies in its folder "page". */
export const address = (path: string): string => new URL(`../${path}`, import.meta.url).href;

async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal, left = RETRIES): Promise<Response> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key.value) headers["Authorization"] = `Bearer ${key.value}`;
    const request: RequestInit = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
    if (body !== undefined) request.body = JSON.stringify(body);
    if (signal) request.signal = signal;
    let answer: Response;
    try {
        answer = await fetch(address(path), request);
    } catch (error) {
        if (signal?.aborted) throw error;
        throw new Problem("", "unreachable");
    }
    if ((answer.status === 429 || answer.status === 503) && left) {
        await new Promise((done) => setTimeout(done, 1000 * Math.min(Number(answer.headers.get("Retry-After")) || 1, 5)));
        signal?.throwIfAborted();
        return ask(method, path, body, signal, left - 1);
    }
    if (answer.ok) return answer;
    if (answer.status === 401) refused.value = true;
    const problem = (await answer.json().catch(() => null))?.error ?? {};
    throw new Problem(problem.message ?? `${answer.status}`, problem.type ?? "unknown", problem.request_id);
}

const send = async <T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> => (await ask(method, path, body, signal)).json();

const where = (parameters: Record<string, string | number>): string =>
    Object.entries(parameters)
        .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
        .join("&");

export const recommend = (asked: Asked, count: number, spread: Spread, signal: AbortSignal): Promise<Recommended> =>
    send("POST", "v1/recommend", { ...asked, ...spread, count, timings: true }, signal);

/** The project's device folder, if there is one. */
export interface DeviceFolder {
    num_bytes?: number;
    dtype?: string;
    problem?: string;
}
export const getDevice = (signal: AbortSignal): Promise<DeviceFolder> => send("GET", "v1/device", undefined, signal);

export const rankingInputs = (asked: Asked, signal: AbortSignal): Promise<RankingInputs> => send("POST", "v1/device/inputs", asked, signal);

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

export interface Message {
    role: "user" | "assistant";
    content: string;
}
/** What a reply names, and what it rests on. */
export interface Found {
    items: Ranked[];
    reasons: Reason[];
}

/** The next message of a conversation as it is written, and at last what it rests on. */
export async function* chat(user: string, messages: Message[], signal: AbortSignal): AsyncGenerator<string | Found> {
    const answer = await ask("POST", "v1/chat/completions", { user, messages, stream: true }, signal);
    let text = "";
    for await (const part of decoded(answer.body as ReadableStream<Uint8Array<ArrayBuffer>>)) {
        const lines = (text + part).split("\n\n");
        text = lines.pop() ?? "";
        for (const line of lines) {
            const data = line.slice("data: ".length);
            if (data === "[DONE]") return;
            const event = JSON.parse(data);
            if (event.error) throw new Problem(event.error.message, event.error.type, event.error.request_id);
            const piece = event.choices[0]?.delta.content;
            if (piece) yield piece;
            if (event.m6rec) yield event.m6rec;
        }
    }
    throw new Problem("", "unreachable"); // it ended before its end
}

async function* decoded(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
        for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
    } finally {
        reader.cancel().catch(() => undefined);
    }
}

export interface Made {
    text: string;
    source: "model" | "template";
    category: string;
    item?: string;
    rejected: string[];
}
export interface Wanted {
    user: string;
    kind: "design" | "query" | "headline";
    count: number;
    item?: string;
    category?: string;
    catalogue?: boolean;
}

export const create = async (wanted: Wanted, signal: AbortSignal): Promise<Made[]> =>
    (await send<{ texts: Made[] }>("POST", "v1/create", wanted, signal)).texts;

// Of those who run the service

export type Role = "read" | "write" | "admin";
export interface Route {
    route: string;
    requests: number;
    refused: number;
    failed: number;
    p50_ms: number;
    p99_ms: number;
}
export interface Status {
    version: string;
    now: number;
    started: number;
    role: Role;
    keys: boolean;
    running: number;
    queues: { queue: string; waiting: number; limit: number }[];
    traffic: Route[];
    faults: { time: number; request_id: string; method: string; route: string; status: number; type: string }[];
    cache?: { hits: number; misses: number; entries: number; bytes: number; store_failures: number };
    data: { num_items: number; num_indexed: number; index_changed: number; num_users: number; num_events: number; num_new_events: number; events_changed?: number };
    tasks: { name: string; done: number; total: number; eta_s?: number }[];
}
export interface MeasuredTable {
    title: string;
    metric: string;
    ours: string;
    verdict: string;
    note: string;
    rows: { method: string; metrics: Record<string, { mean: number; deviation?: number }> }[];
}
export interface Deployment {
    runs: { run: string; task: string; readout: string; finished: number; method: string; num_parameters: number; validation_scores: number[] }[];
    data?: {
        domain: string;
        split: string;
        feedback: string;
        num_events: number;
        num_items: number;
        num_users: number;
        time: string;
        columns: Record<string, Record<string, string>>;
        dropped: Record<string, number>;
        notes: string[];
    };
    tunings: { run: string; step: number; num_steps: number; saved: number; eta_s?: number }[];
    evaluations: { title: string; measured: number; facts: Record<string, string | number>; tables: MeasuredTable[] }[];
    reports: { name: string; written: number; num_bytes: number }[];
}
/** A report of the project, or without a name one of the served runs, as HTML. */
export const getReport = async (name: string): Promise<string> =>
    (await ask("GET", name ? `v1/reports/${name.split("/").map(encodeURIComponent).join("/")}` : "v1/report")).text();

export type Exported = "events" | "items" | "users";

export const getStatus = (signal: AbortSignal): Promise<Status> => send("GET", "v1/status", undefined, signal);
export const getDeployment = (signal: AbortSignal): Promise<Deployment> => send("GET", "v1/deployment", undefined, signal);
export const reload = (): Promise<unknown> => send("POST", "v1/admin/reload");
export const exported = async (kind: Exported): Promise<Blob> => (await ask("GET", `v1/export/${kind}`)).blob();

/** Whether there was anything to erase, and under which id the log has it. */
export async function erase(user: string): Promise<{ erased: boolean; request: string }> {
    const answer = await ask("DELETE", `v1/users/${encodeURIComponent(user)}`);
    return { erased: (await answer.json()).erased, request: answer.headers.get("X-Request-Id") ?? "" };
}

export interface Written {
    written: number;
    repeated: number;
    unknown: string[];
}

/** Writes events or items, at most 1,000. */
export async function write(kind: "events" | "items", rows: unknown[], signal: AbortSignal): Promise<Written> {
    const told = await send<Partial<Written & { accepted: number }>>("POST", `v1/${kind}`, { [kind]: rows }, signal);
    return { written: told.accepted ?? told.written ?? 0, repeated: told.repeated ?? 0, unknown: told.unknown ?? [] };
}
