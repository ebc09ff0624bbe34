// A table of events or items, column by column, as the service's own routes take it, some rows at a time.

import { Problem, write } from "./api.ts";
import { rowsOf, separatorOf } from "./csv.ts";

export type Kind = "events" | "items";
export type Meaning = "" | "user" | "item" | "time" | "value" | "kind" | "text" | "impression" | "context" | "id" | "title" | "categories" | "details";

export const MEANINGS: Record<Kind, Meaning[]> = {
    events: ["", "user", "item", "time", "value", "kind", "text", "impression", "context"],
    items: ["", "id", "title", "categories", "details"],
};
export const NEEDED: Record<Kind, Meaning[]> = { events: ["user", "item", "time"], items: ["id", "title"] };
/** What several columns may be. */
const SEVERAL: Meaning[] = ["", "context", "details"];

export interface CsvTable {
    name: string;
    header: string[];
    rows: string[][];
}

export const MOST_BYTES = 64 << 20;
const ROWS_AT_ONCE = 500;
/** Of a body, of whose 1 MiB a character may take three. */
const CHARS_AT_ONCE = 300_000;
export const MOST_REFUSED = 20;

export async function tableOf(file: File): Promise<CsvTable> {
    const text = await file.text();
    const [header = [], ...rows] = rowsOf(text, separatorOf(text));
    return { name: file.name, header: header.map((name) => name.trim()), rows };
}

const NAMES: [Meaning, RegExp][] = [
    ["user", /^(user|customer|reviewer|visitor|member|account|client|buyer|reader|listener|player|person)(id)?$/],
    ["item", /^(item|movie|product|article|book|track|song|game|news|sku|asin|isbn)(id)?$/],
    ["time", /^(time|timestamp|ts|date|datetime|when|day|created(at)?|event(time|date))$/],
    ["value", /^(value|rating|ratings|score|stars|count|plays)$/],
    ["kind", /^(kind|event|action|type|behaviou?r|eventtype)$/],
    ["text", /^(text|review|reviewtext|comment|query)$/],
    ["impression", /^(impression|slate|request)(id)?$/],
    ["id", /^(id|item|itemid|movieid|productid|articleid|bookid|trackid|songid|gameid|newsid|sku|asin|isbn)$/],
    ["title", /^(title|name|headline|itemtitle|movietitle|productname)$/],
    ["categories", /^(category|categories|genre|genres|tags|topics|department)$/],
];

export const kindOf = ({ header }: CsvTable): Kind => (guess("events", header).includes("user") ? "events" : "items");

/** What each column seems to be; one that says nothing known is a detail of an item, and not read of an event. */
export function guess(kind: Kind, header: string[]): Meaning[] {
    const taken = new Set<Meaning>();
    return header.map((name) => {
        const plain = name.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
        const [found] = NAMES.find(([meaning, names]) => MEANINGS[kind].includes(meaning) && !taken.has(meaning) && names.test(plain)) ?? [];
        if (found) taken.add(found);
        return found ?? (kind === "items" ? "details" : "");
    });
}

/** The meanings after one was chosen, which no two columns have. */
export const chosen = (meanings: Meaning[], place: number, meaning: Meaning): Meaning[] =>
    meanings.map((one, at) => (at === place ? meaning : one === meaning && !SEVERAL.includes(meaning) ? "" : one));

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

class NoNumberError extends Error {}

/** A row as the service takes it; what is empty is left out. Throws NoNumberError with the value that isn't one. */
function bodyOf(kind: Kind, header: string[], meanings: Meaning[], cells: string[]): Record<string, unknown> {
    const body: Record<string, unknown> = {};
    const further: Record<string, string | number> = {};
    meanings.forEach((meaning, place) => {
        const cell = (cells[place] ?? "").trim();
        if (!meaning || !cell) return;
        const isNumber = NUMBER.test(cell);
        if (meaning === "context" || meaning === "details") further[header[place] || `column ${place + 1}`] = isNumber && Number.isSafeInteger(Math.trunc(Number(cell))) ? Number(cell) : cell;
        else if (meaning === "categories") body[meaning] = cell.split(cell.includes("|") ? "|" : cell.includes(";") ? ";" : ",").map((one) => one.trim()).filter(Boolean);
        else if (meaning === "value" && !isNumber) throw new NoNumberError(cell);
        else body[meaning] = (meaning === "value" || meaning === "time") && isNumber ? Number(cell) : cell;
    });
    if (Object.keys(further).length) body[kind === "events" ? "context" : "details"] = further;
    return body;
}

export interface Imported {
    done: number;
    written: number;
    repeated: number;
    unknown: string[];
    /** Number of the row, counted from 1 below the header, and why. */
    refused: [row: number, message: string][];
    eta_s?: number;
}

/** Writes a table and tells how far it is. It stops where more than `MOST_REFUSED` rows are refused. */
export async function* bring(table: CsvTable, kind: Kind, meanings: Meaning[], noNumber: (value: string) => string, signal: AbortSignal): AsyncGenerator<Imported> {
    const began = performance.now();
    const told: Imported = { done: 0, written: 0, repeated: 0, unknown: [], refused: [] };
    type Row = { row: number; body: Record<string, unknown> };

    const put = async (rows: Row[]): Promise<void> => {
        if (!rows.length || told.refused.length > MOST_REFUSED) return;
        try {
            const answer = await write(kind, rows.map(({ body }) => body), signal);
            told.written += answer.written;
            told.repeated += answer.repeated;
            told.unknown = [...new Set([...told.unknown, ...answer.unknown])];
        } catch (error) {
            if (!(error instanceof Problem && (error.type === "invalid" || error.type === "not_found"))) throw error;
            const [only] = rows;
            if (only && rows.length === 1) told.refused.push([only.row, error.message.replace(/^\w+\[\d+\]\.?/, "")]);
            else for (const half of [rows.slice(0, rows.length >> 1), rows.slice(rows.length >> 1)]) await put(half);
        }
    };

    let waiting: Row[] = [];
    let chars = 0;
    for (const [place, cells] of table.rows.entries()) {
        try {
            const body = bodyOf(kind, table.header, meanings, cells);
            waiting.push({ row: place + 1, body });
            chars += JSON.stringify(body).length;
        } catch (error) {
            if (!(error instanceof NoNumberError)) throw error;
            told.refused.push([place + 1, noNumber(error.message)]);
        }
        const last = place + 1 === table.rows.length || told.refused.length > MOST_REFUSED;
        if (last || waiting.length === ROWS_AT_ONCE || chars > CHARS_AT_ONCE) {
            await put(waiting);
            [waiting, chars] = [[], 0];
            told.done = place + 1;
            told.eta_s = (((performance.now() - began) / told.done) * (table.rows.length - told.done)) / 1000;
            yield { ...told, refused: [...told.refused] };
            if (told.refused.length > MOST_REFUSED) return;
        }
    }
}
