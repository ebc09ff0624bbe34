/** The recommender of one user in one page; see `m6rec/device.py`, whose questions and scores it shares. */

import { InferenceSession, env, type Tensor } from "onnxruntime-web/wasm";

import { AssetError, DataError, UnknownError, message } from "./errors.js";
import { ADAPTERS, Folder, ITEMS, LOWER, TOKENIZER, UPPER, type Headers, type Manifest, type Progress } from "./folder.js";
import { readBundle } from "./bundle.js";
import { NUM_FEATURES } from "./features.js";
import { InteractionStore } from "./interactions.js";
import { Store, type Contents } from "./store.js";
import { Tokenizer } from "./tokenizer.js";
import type { Event, Item, Known, Ranked, RankingInputs, Segment } from "./types.js";
import { TAKEN, inputs, whole, type Row } from "./upper.js";

/** Of one run of the upper half, whose time and memory grow with the square of them. */
const CANDIDATES = 256;
/** Texts whose states are held in memory beside the database. */
const REMEMBERED = 4096;

export interface Options {
    /** Name of the database that keeps items, events and states. */
    readonly store?: string;
    /** Threads of the runtime; by default one, or up to four where the page is cross-origin isolated. */
    readonly threads?: number;
    /** Where the files of onnxruntime-web are; by default beside this script. */
    readonly runtime?: string;
    /** Called with the bytes that are there, and all. */
    readonly progress?: Progress;
    /** Sent with each request for a file of the folder, such as a key. */
    readonly headers?: Headers;
}

/** A user's own recommender. Its calls run one after another. */
export class Device {
    /** What can be ranked, by id. */
    items: ReadonlyMap<string, Item> = new Map();
    private known: ReadonlyMap<string, Known> = new Map();
    private profile: readonly Segment[] = [];
    private usesFeatures = false;
    private interactions = new InteractionStore(new Map(), [0, 0, 0], {});
    private lower: Promise<InferenceSession> | undefined;
    private readonly states = new Map<string, Float32Array>();
    private turn: Promise<unknown> = Promise.resolve();

    private constructor(
        readonly manifest: Manifest,
        private readonly folder: Folder,
        private readonly store: Store,
        private readonly tokenizer: Tokenizer | null,
        private readonly upper: InferenceSession,
    ) {}

    /**
     * Opens a device folder, every file of which is verified. After that no request leaves the page.
     *
     * @param url The folder that `m6rec export` wrote.
     * @throws AssetError The folder is no device folder, of another format, or damaged.
     * @throws StoreError The database is of another format, or fails.
     */
    static async load(url: string, options: Options = {}): Promise<Device> {
        env.wasm.numThreads = options.threads ?? (globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1);
        env.wasm.wasmPaths = new URL(options.runtime ?? ".", import.meta.url).href;
        const folder = await Folder.open(url, options.progress, options.headers);
        const { manifest } = folder;
        const data = ADAPTERS in manifest.files ? [{ path: ADAPTERS, data: await folder.read(ADAPTERS) }] : [];
        const upper = await session(await folder.read(UPPER), UPPER, data);
        const strange = [...TAKEN, ...upper.inputNames].filter((name) => !(TAKEN.includes(name) && upper.inputNames.includes(name)));
        if (strange.length) {
            throw new AssetError(
                `${UPPER} is of another m6rec than this package: only one of them knows its input ${strange.join(", ")}; ` +
                    "export it again with the m6rec of this package",
            );
        }
        const features = upper.inputMetadata.find(({ name }) => name === "features");
        const known = features?.isTensor ? features.shape[1] : 0;
        if (known !== 0 && known !== NUM_FEATURES) {
            throw new AssetError(
                `${UPPER} is of another m6rec than this package: it takes ${known} features, but here are ` +
                    `${NUM_FEATURES}; export it again with the m6rec of this package`,
            );
        }
        const store = await Store.open(options.store ?? "m6rec", `${manifest.files[LOWER]?.sha256 ?? manifest.model}|${manifest.keep}`);
        const device = new Device(
            manifest,
            folder,
            store,
            TOKENIZER in manifest.files ? new Tokenizer(await folder.read(TOKENIZER)) : null,
            upper,
        );
        const items = manifest.files[ITEMS]?.sha256;
        if (items && (await store.note("items")) !== items) {
            await device.take(await folder.read(ITEMS), ITEMS, { items });
        } else {
            device.remember(await store.contents());
        }
        return device;
    }

    /** What the user did, oldest first. */
    get history(): readonly Event[] {
        return this.interactions.events;
    }

    /**
     * Takes in a bundle of `m6rec.edge.export.send`, all or nothing. What it counts takes the place of what is known of
     * these items.
     *
     * @throws AssetError It is damaged, no bundle, of another format, or of another model.
     */
    receive(bundle: Uint8Array<ArrayBuffer>): Promise<void> {
        return this.next(() => this.take(bundle, "the bundle", {}));
    }

    /**
     * Takes in what the user did, all or nothing, oldest first; on return it is on disk.
     *
     * @throws UnknownError An item isn't known.
     * @throws DataError A value is none of the server's log, or a time is no whole number.
     */
    ingest(...events: Event[]): Promise<void> {
        return this.next(async () => {
            const said = events.map((event) => {
                if (!Number.isSafeInteger(event.time)) {
                    throw new DataError(`${event.time} is no time; give whole seconds since 1970`);
                }
                return valued(this.need(event.item), event.value);
            });
            await this.store.append(events);
            events.forEach((event, number) => this.interactions.update(event, said[number]!.liked, said[number]!.strength));
        });
    }

    /**
     * The items by falling probability that the user likes them.
     *
     * @throws UnknownError An item isn't known.
     */
    rank(items: readonly string[]): Promise<Ranked[]> {
        return this.next(async () => {
            const asked = items.map((item) => this.need(item));
            if (!asked.length) return [];
            const scores = await this.scores(asked);
            return asked.map(({ item }, number) => ({ item, score: scores[number]! })).sort((a, b) => b.score - a.score);
        });
    }

    /**
     * What a service would recommend, best first, by its candidates, texts and features; nothing of it is kept. The order
     * is the service's where the folder is of the run that it serves.
     *
     * @throws AssetError The folder's model was tuned on other words or features than the service's.
     * @throws DataError A text was not sent, and the folder has no lower half.
     */
    recommend(inputs: RankingInputs): Promise<Ranked[]> {
        return this.next(async () => {
            for (const part of ["wording", "features"] as const) {
                if (inputs[part] === this.manifest[part]) continue;
                throw new AssetError(`the folder has another ${part} than the service; export it again from the run that is served`);
            }
            const { context, candidates, orders, fusion } = inputs;
            const scores: number[] = [];
            for (let first = 0; first < candidates.length; first += CANDIDATES) {
                const part = candidates.slice(first, first + CANDIDATES);
                scores.push(
                    ...(await this.forward(
                        {
                            context: context.map(segment),
                            candidates: part.map(({ segments }) => segments.map(segment)),
                            event_features: inputs.event_features.flat(),
                            features: Float32Array.from(part.flatMap(({ features }) => features)),
                        },
                        false,
                    )),
                );
            }
            const ranked = candidates.map(({ item }, number) => ({ item, score: scores[number]! })).sort((a, b) => b.score - a.score);
            return orders.length ? fused(ranked, orders, fusion) : ranked;
        });
    }

    /** The values that an event with the item can have. */
    values(item: string): readonly (number | null)[] {
        return this.need(item).kind.values;
    }

    /** Removes all that the user did. */
    forget(): Promise<void> {
        return this.next(async () => {
            await this.store.forget();
            this.remember(await this.store.contents());
        });
    }

    /**
     * Token ids of a text.
     *
     * @throws DataError The folder has no lower half.
     */
    encode(text: string): number[] {
        if (this.tokenizer) return this.tokenizer.encode(text);
        throw new DataError(
            `the state of the text '${text}' was not sent, and this device can't read; send its item with the states of ` +
                "events, and the user's profile, or export the folder with its lower half",
        );
    }

    /** Frees the graphs and the database; nothing can be asked after it. */
    close(): Promise<void> {
        return this.next(async () => {
            this.store.close();
            await this.upper.release();
            await (await this.lower)?.release();
        });
    }

    private async scores(asked: readonly Known[]): Promise<number[]> {
        const context = [...this.profile, ...this.interactions.events.map((event) => valued(this.need(event.item), event.value).segment)];
        const candidates = asked.map(({ head, kind }) => kind.candidate.map(([tail, slot]): Segment => [head + tail, slot]));
        const scores: number[] = [];
        for (let first = 0; first < asked.length; first += CANDIDATES) {
            const part = asked.slice(first, first + CANDIDATES);
            const row: Row = {
                context,
                candidates: candidates.slice(first, first + CANDIDATES),
                event_features: this.usesFeatures ? this.interactions.eventFeatures : [],
                features: this.usesFeatures ? this.interactions.features(part.map(({ item }) => item.id)) : new Float32Array(),
            };
            scores.push(...(await this.forward(row, true)));
        }
        return scores;
    }

    /** Scores of a moment's candidates; `keep` stores the states that are computed for them. */
    private async forward(row: Row, keep: boolean): Promise<Float32Array> {
        const states = await this.read(new Set([...row.context, ...row.candidates.flat()].map(([text]) => text)), keep);
        return run(this.upper, inputs(row, states, this.manifest.width));
    }

    /** States of texts, computed where they are not known. */
    private async read(texts: ReadonlySet<string>, keep: boolean): Promise<Map<string, Float32Array>> {
        const found = new Map<string, Float32Array>();
        for (const text of texts) {
            const states = this.states.get(text);
            if (states) found.set(text, states);
        }
        const kept = await this.store.states([...texts].filter((text) => !found.has(text)));
        const fresh = new Map<string, Float32Array>();
        for (const text of texts) {
            if (found.has(text) || kept.has(text)) continue;
            const ids = this.encode(text);
            if (!ids.length) throw new DataError(`the text '${text}' has no token; leave empty segments out`);
            this.lower ??= this.folder.read(LOWER).then((bytes) => session(bytes, LOWER));
            fresh.set(text, await run(await this.lower, { ids: whole(ids) }));
        }
        if (keep) await this.store.putStates(fresh);
        for (const [text, states] of [...kept, ...fresh]) {
            found.set(text, states);
            this.states.set(text, states);
        }
        for (const text of this.states.keys()) {
            if (this.states.size <= REMEMBERED) break;
            this.states.delete(text);
        }
        return found;
    }

    private async take(bytes: Uint8Array<ArrayBuffer>, source: string, notes: Readonly<Record<string, unknown>>): Promise<void> {
        const bundle = await readBundle(bytes, this.manifest, source);
        const before = await this.store.contents();
        const items = new Map([...before.items, ...bundle.known.map((known) => [known.item.id, known] as const)]);
        for (const event of before.events) {
            const known = items.get(event.item);
            if (known && !known.kind.values.includes(event.value)) {
                throw new AssetError(`${source} doesn't word value ${event.value}, which the history has; send it anew`);
            }
        }
        await this.store.receive(bundle, notes);
        this.states.clear();
        this.remember(await this.store.contents());
    }

    /** Counts anew from what is stored. */
    private remember({ items, events, total, scales, profile, uses_features }: Contents): void {
        this.known = items;
        this.items = new Map([...items].map(([id, { item }]) => [id, item]));
        this.profile = profile;
        this.usesFeatures = uses_features;
        this.interactions = new InteractionStore(items, total, scales);
        for (const event of events) {
            const { liked, strength } = valued(this.need(event.item), event.value);
            this.interactions.update(event, liked, strength);
        }
    }

    private need(item: string): Known {
        const known = this.known.get(item);
        if (known) return known;
        throw new UnknownError(`there is no item '${item}' among the ${this.known.size} on this device; send it first`);
    }

    /** Runs a call after those before it. */
    private next<T>(call: () => Promise<T>): Promise<T> {
        const done = this.turn.then(call);
        this.turn = done.catch(() => undefined);
        return done;
    }
}

/** How an item is worded as an event of some value, whether that is a like, and how strong it is. */
function valued({ item, head, kind }: Known, value: number | null): { liked: boolean; strength: number; segment: Segment } {
    const place = kind.values.indexOf(value);
    const event = kind.events[place];
    if (!event) {
        throw new DataError(`value ${value} of item '${item.id}' isn't worded; give one of ${kind.values.join(", ")}`);
    }
    return { liked: kind.likes[place]!, strength: kind.strengths[place]!, segment: [head + event[0], event[1]] };
}

function segment({ text, slot }: RankingInputs["context"][number]): Segment {
    return [text, slot];
}

/** Ranked items, in which other orders weigh as much as the scores each; `reciprocal_rank_fusion` of Python. */
function fused(ranked: readonly Ranked[], orders: RankingInputs["orders"], fusion: number): Ranked[] {
    const weights = new Map<string, number>();
    for (const order of [...orders, ranked.map(({ item }) => item.id)]) {
        order.forEach((id, place) => weights.set(id, (weights.get(id) ?? 0) + 1 / (fusion + place)));
    }
    const byId = new Map(ranked.map((one) => [one.item.id, one]));
    return [...weights.keys()].sort((a, b) => weights.get(b)! - weights.get(a)!).map((id) => byId.get(id)!);
}

async function session(
    bytes: Uint8Array,
    name: string,
    externalData: readonly { readonly path: string; readonly data: Uint8Array }[] = [],
): Promise<InferenceSession> {
    try {
        return await InferenceSession.create(bytes, { executionProviders: ["wasm"], externalData });
    } catch (error) {
        throw new AssetError(`${name} can't be run by onnxruntime-web ${env.versions.web} (${message(error)})`);
    }
}

/** The one output of a graph. */
async function run(graph: InferenceSession, feeds: Record<string, Tensor>): Promise<Float32Array> {
    const results = await graph.run(feeds);
    return (await results[graph.outputNames[0]!]!.getData()) as Float32Array;
}
