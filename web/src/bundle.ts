/** Items as a server sends them: what `m6rec.edge.export.send` wrote. */

import { AssetError, message } from "./errors.js";
import { FORMAT, digest, type Manifest } from "./folder.js";
import type { Count, Item, Kind, Known, Scales, Segment } from "./types.js";

/** A bundle that was verified. */
export interface ItemBundle {
    readonly known: readonly Known[];
    readonly total: Count;
    readonly scales: Scales;
    /** The user's profile; null where the bundle says nothing of them. */
    readonly profile: readonly Segment[] | null;
    readonly uses_features: boolean;
    /** States of texts, [tokens, width] each. */
    readonly states: ReadonlyMap<string, Float32Array>;
}

interface Words {
    readonly features: boolean;
    readonly values: readonly (number | null)[];
    readonly profile: readonly Segment[] | null;
    readonly kinds: readonly Omit<Kind, "values">[];
    readonly items: readonly (readonly [head: string, kind: number])[];
}

interface Raw {
    readonly format: number;
    readonly model: string;
    readonly depth: number;
    readonly keep: number;
    readonly items: readonly Item[];
    readonly total: Count;
    readonly popularity: Readonly<Record<string, Count>>;
    readonly scales: Scales | undefined;
    readonly words: Words | null | undefined;
    readonly texts: readonly string[];
    readonly counts: readonly number[];
}

/**
 * Reads a bundle for the model of a manifest.
 *
 * @param source What messages call it.
 * @throws AssetError It is damaged, no bundle, of another format, has no words, or its states are of another model.
 */
export async function readBundle(bytes: Uint8Array<ArrayBuffer>, manifest: Manifest, source: string): Promise<ItemBundle> {
    try {
        const { text, seal, shape, data } = open(bytes);
        const raw = JSON.parse(text) as Raw;
        if (raw.format !== FORMAT) {
            throw new AssetError(`${source} has format ${raw.format}, but this m6rec-web reads format ${FORMAT}; send it anew`);
        }
        if (seal !== (await digest(new TextEncoder().encode(text), data))) throw new Error("its sha256 is another");
        if (!raw.words) {
            throw new AssetError(
                `${source} says nothing of how its items are worded, which a browser needs; send it with this m6rec, and ` +
                    "rank by a task whose words don't depend on an event's time or text",
            );
        }
        if (raw.texts.length && (raw.model !== manifest.model || raw.depth !== manifest.depth || raw.keep !== manifest.keep)) {
            throw new AssetError(
                `the states in ${source} are of model ${raw.model} (depth ${raw.depth}, ${raw.keep} kept), but this device ` +
                    `runs ${manifest.model} (depth ${manifest.depth}, ${manifest.keep} kept); send states of its own model, or text only`,
            );
        }
        const tokens = raw.counts.reduce((sum, count) => sum + count, 0);
        if (shape[0] !== tokens || shape[1] !== manifest.width || raw.texts.length !== raw.counts.length) {
            throw new Error(`states of shape ${shape}; they have width ${manifest.width}`);
        }
        const states = new Map<string, Float32Array>();
        let first = 0;
        raw.texts.forEach((one, place) => {
            const end = first + 4 * manifest.width * raw.counts[place]!;
            states.set(one, new Float32Array(data.slice(first, end).buffer));
            first = end;
        });
        const words = raw.words;
        const kinds = words.kinds.map((kind) => ({ values: words.values, ...kind }));
        if (words.items.length !== raw.items.length) throw new Error("it doesn't word each item");
        const known = raw.items.map((item, place): Known => {
            const [head, number] = words.items[place]!;
            const kind = kinds[number];
            if (!kind) throw new Error(`it has no kind ${number}`);
            return { item, head, kind, count: raw.popularity[item.id] ?? null };
        });
        if (!raw.scales) throw new Error("it says nothing of its items' numbers");
        return { known, total: raw.total, scales: raw.scales, profile: words.profile, uses_features: words.features, states };
    } catch (error) {
        if (error instanceof AssetError) throw error;
        throw new AssetError(`${source} is not a readable bundle of items (${message(error)}); send it anew`);
    }
}

/** The parts of the safetensors file. */
function open(bytes: Uint8Array<ArrayBuffer>): { text: string; seal: string; shape: number[]; data: Uint8Array<ArrayBuffer> } {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, start))) as {
        __metadata__: { bundle: string; sha256: string };
        states_TD: { dtype: string; shape: number[]; data_offsets: [number, number] };
    };
    const { dtype, shape, data_offsets: offsets } = header.states_TD;
    const data = bytes.subarray(start + offsets[0], start + offsets[1]);
    if (dtype !== "F32" || start + offsets[1] !== bytes.length) throw new Error(`${dtype} states that end at ${offsets[1]}`);
    return { text: header.__metadata__.bundle, seal: header.__metadata__.sha256, shape, data };
}
