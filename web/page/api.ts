// The service's own HTTP API, as far as the page needs it (docs/api.md). Paths are those of the service, wherever it is.

import type { RankingInputs } from "m6rec-web";
import type { Schemas } from "../client/src/index.ts";
import { key, refused } from "./settings.ts";

export type Item = Schemas["Item"];
export type Ranked = Schemas["Ranked"];
export type StoredEvent = Schemas["KeptEvent"];
/** What someone did, as `history` of a request takes it. */
export type HistoryEvent = Partial<Pick<StoredEvent, "item" | "time" | "value" | "text" | "kind">>;
export type User = Schemas["UserAnswer"];
/** Whom a list is for. */
export interface Asked {
    user: string;
    history: HistoryEvent[];
    filters: Required<Pick<Schemas["FiltersBody"], "exclude" | "exclude_categories">>;
}
export type Spread = Required<Pick<Schemas["RecommendBody"], "diversity" | "calibration">>;
export type Recommended = Omit<Schemas["RankedAnswer"], "unknown">;
export type Reason = Schemas["Reason"];
export type Segment = Schemas["InspectedText"];
export type Placement = Schemas["Placement"];
export type Inspection = Schemas["Inspection"];

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
export type DeviceFolder = Schemas["DeviceAnswer"];
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
export type Found = Schemas["Found"];

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

export type Made = Schemas["GenerationResult"];
export type Wanted = Schemas["CreateBody"];

export const create = async (wanted: Wanted, signal: AbortSignal): Promise<Made[]> =>
    (await send<{ texts: Made[] }>("POST", "v1/create", wanted, signal)).texts;

// Of those who run the service

export type Status = Schemas["ServiceStatus"];
export type Role = Status["role"];
export type Route = Schemas["RouteTraffic"];
export type MeasuredTable = Schemas["MeasuredTable"];
export type Deployment = Schemas["Deployment"];
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
