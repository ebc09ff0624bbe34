/** What the upper half takes: `m6rec.device._inputs` for one moment. */

import { Tensor } from "onnxruntime-web/wasm";

import { NUM_FEATURES, NUM_EVENT_FEATURES } from "./features.js";
import { SLOTS, type Segment } from "./types.js";

/** The inputs of the graph. */
export const TAKEN = "states slots owners positions event_features event_tokens last_states last_slots last_positions features".split(" ");

/** One moment's questions. */
export interface Row {
    readonly context: readonly Segment[];
    readonly candidates: readonly (readonly Segment[])[];
    /** `NUM_EVENT_FEATURES` numbers of each of the last segments of the context, which are the events; empty for tasks without. */
    readonly event_features: readonly number[];
    /** `NUM_FEATURES` numbers of each candidate; empty for tasks without. */
    readonly features: Float32Array;
}

/** Tokens that are only looked at, and the last of every candidate, without padding. */
export function inputs(row: Row, states: ReadonlyMap<string, Float32Array>, width: number): Record<string, Tensor> {
    const looked = new Tokens(width);
    const asked = new Tokens(width);
    const ends: number[] = [];
    let length = 0;
    for (const [text, slot] of row.context) ends.push((length = looked.lay(states.get(text)!, slot, 0, length)));
    row.candidates.forEach((block, number) => {
        let start = length;
        block.forEach(([text, slot], place) => {
            const part = states.get(text)!;
            const answers = place === block.length - 1;
            const inner = answers ? part.subarray(0, part.length - width) : part;
            start = looked.lay(inner, slot, number + 1, start);
            if (answers) asked.lay(part.subarray(inner.length), slot, number + 1, start);
        });
    });
    const events = row.event_features.length / NUM_EVENT_FEATURES;
    const event_tokens = ends.slice(row.context.length - events).map((end) => end - 1);
    const count = row.candidates.length;
    return {
        states: looked.states(),
        slots: whole(looked.slots),
        owners: whole(looked.owners),
        positions: whole(looked.positions),
        event_features: new Tensor("float32", Float32Array.from(row.event_features), [events, row.features.length ? NUM_EVENT_FEATURES : 0]),
        event_tokens: whole(event_tokens),
        last_states: asked.states(),
        last_slots: whole(asked.slots),
        last_positions: whole(asked.positions),
        features: new Tensor("float32", row.features, [count, row.features.length ? NUM_FEATURES : 0]),
    };
}

/** Tokens of some texts, one after another. */
class Tokens {
    readonly slots: number[] = [];
    readonly owners: number[] = [];
    readonly positions: number[] = [];
    private readonly parts: Float32Array[] = [];

    constructor(private readonly width: number) {}

    /** Adds the states of a text from some position on; returns the position after it. */
    lay(part: Float32Array, slot: Segment[1], owner: number, start: number): number {
        const end = start + part.length / this.width;
        this.parts.push(part);
        for (let position = start; position < end; position++) {
            this.slots.push(SLOTS.indexOf(slot));
            this.owners.push(owner);
            this.positions.push(position);
        }
        return end;
    }

    states(): Tensor {
        const table = new Float32Array(this.slots.length * this.width);
        let place = 0;
        for (const part of this.parts) {
            table.set(part, place);
            place += part.length;
        }
        return new Tensor("float32", table, [this.slots.length, this.width]);
    }
}

/** Whole numbers as the graphs take them. */
export function whole(numbers: readonly number[]): Tensor {
    return new Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
}
