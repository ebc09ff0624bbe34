/** What a page keeps in IndexedDB: items, the user's events, states of texts. Each call is a transaction. */

import { DataError, StoreError, message } from "./errors.js";
import { FORMAT } from "./folder.js";
import type { ItemBundle } from "./bundle.js";
import type { Count, Event, Known, Scales, Segment } from "./types.js";

const STORES = ["notes", "items", "events", "states"] as const;
type Name = (typeof STORES)[number];

/** What is known from bundles and of the user. */
export interface Contents {
    readonly items: Map<string, Known>;
    readonly events: Event[];
    readonly total: Count;
    readonly scales: Scales;
    readonly profile: readonly Segment[];
    readonly uses_features: boolean;
}

/** One device's own database. */
export class Store {
    private constructor(
        private readonly name: string,
        private readonly database: IDBDatabase,
    ) {}

    /**
     * Opens the database, which is made if need be.
     *
     * @param scope What states depend on beside their text; those of another scope are dropped.
     * @throws StoreError It is of another format, or fails, as with all methods.
     */
    static async open(name: string, scope: string): Promise<Store> {
        let database: IDBDatabase;
        try {
            const opening = indexedDB.open(name, FORMAT);
            opening.onupgradeneeded = () => {
                for (const one of STORES) opening.result.createObjectStore(one, { autoIncrement: one === "events" });
            };
            database = await result(opening);
        } catch (error) {
            throw new StoreError(`the database ${name} can't be opened (${message(error)}); give another name, or remove it`);
        }
        database.onversionchange = () => database.close();
        const store = new Store(name, database);
        if ((await store.note("scope")) !== scope) {
            await store.change(["notes", "states"], (of) => {
                of("states").clear();
                of("notes").put(scope, "scope");
            });
        }
        return store;
    }

    /** What was noted under a name. */
    async note(name: string): Promise<unknown> {
        return this.look("notes", (notes) => result(notes.get(name)));
    }

    async contents(): Promise<Contents> {
        try {
            const transaction = this.database.transaction(["notes", "items", "events"]);
            const notes = transaction.objectStore("notes");
            const [items, events, total, scales, profile, features] = await Promise.all([
                result(transaction.objectStore("items").getAll()) as Promise<Known[]>,
                result(transaction.objectStore("events").getAll()) as Promise<Event[]>,
                result(notes.get("total")) as Promise<Count | undefined>,
                result(notes.get("scales")) as Promise<Scales | undefined>,
                result(notes.get("profile")) as Promise<Segment[] | undefined>,
                result(notes.get("features")) as Promise<boolean | undefined>,
            ]);
            return {
                items: new Map(items.map((known) => [known.item.id, known])),
                events,
                total: total ?? [0, 0, 0],
                scales: scales ?? {},
                profile: profile ?? [],
                uses_features: features ?? false,
            };
        } catch (error) {
            throw this.failing(error);
        }
    }

    /** Takes in a bundle, all or nothing; `notes` are written with it. */
    async receive(bundle: ItemBundle, notes: Readonly<Record<string, unknown>>): Promise<void> {
        const { total, scales, uses_features: features, profile } = bundle;
        const noted = { total, scales, features, ...(profile && { profile }), ...notes };
        await this.change(["notes", "items", "states"], (of) => {
            for (const known of bundle.known) of("items").put(known, known.item.id);
            for (const [text, states] of bundle.states) of("states").put(states, text);
            for (const [name, value] of Object.entries(noted)) of("notes").put(value, name);
        });
    }

    /** Keeps events after those that are there; on return they are on disk. */
    async append(events: readonly Event[]): Promise<void> {
        await this.change(["events"], (of) => {
            for (const { item, time, value } of events) of("events").add({ item, time, value });
        });
    }

    /** Removes all events. */
    async forget(): Promise<void> {
        await this.change(["events"], (of) => of("events").clear());
    }

    /** States of those texts that are there. */
    async states(texts: readonly string[]): Promise<Map<string, Float32Array>> {
        if (!texts.length) return new Map();
        const found = await this.look("states", (states) => Promise.all(texts.map((text) => result(states.get(text)))));
        const pairs = texts.map((text, place) => [text, found[place] as Float32Array | undefined] as const);
        return new Map(pairs.filter((pair): pair is readonly [string, Float32Array] => pair[1] !== undefined));
    }

    async putStates(states: ReadonlyMap<string, Float32Array>): Promise<void> {
        if (!states.size) return;
        await this.change(["states"], (of) => {
            for (const [text, numbers] of states) of("states").put(numbers, text);
        });
    }

    close(): void {
        this.database.close();
    }

    private async look<T>(name: Name, read: (store: IDBObjectStore) => Promise<T>): Promise<T> {
        try {
            return await read(this.database.transaction(name).objectStore(name));
        } catch (error) {
            throw this.failing(error);
        }
    }

    private async change(names: readonly Name[], write: (of: (name: Name) => IDBObjectStore) => void): Promise<void> {
        try {
            const transaction = this.database.transaction(names, "readwrite", { durability: "strict" });
            try {
                write((name) => transaction.objectStore(name));
            } catch (error) {
                transaction.abort();
                throw new DataError(`this can't be written down (${message(error)}); nothing was changed`);
            }
            await new Promise<void>((resolve, reject) => {
                transaction.oncomplete = () => resolve();
                transaction.onabort = () => reject(transaction.error ?? new Error("it was aborted"));
            });
        } catch (error) {
            throw error instanceof DataError ? error : this.failing(error);
        }
    }

    private failing(error: unknown): StoreError {
        return new StoreError(`the database ${this.name} fails (${message(error)}); is there room, and is the page still open once?`);
    }
}

function result<T>(request: IDBRequest<T>): Promise<T> {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}
