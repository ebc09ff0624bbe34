/** What the upper half takes: `m6rec.device._inputs` for one moment. */

import { Tensor } from "onnxruntime-web/wasm";

import { NUM_STATISTICS, NUM_TRACES } from "./past.js";
import { SLOTS, type Segment } from "./types.js";

/** One moment's questions. */
export interface Row {
    readonly context: readonly Segment[];
    readonly candidates: readonly (readonly Segment[])[];
    /** `NUM_TRACES` numbers of each of the last segments of the context, which are the behaviours; empty for tasks without. */
    readonly traces: readonly number[];
    /** `NUM_STATISTICS` numbers of each candidate; empty for tasks without. */
    readonly signals: Float32Array;
}

/** The tokens of the context and of every candidate in one row, without padding. */
export function inputs(row: Row, states: ReadonlyMap<string, Float32Array>, width: number): Record<string, Tensor> {
    const parts: Float32Array[] = [];
    const [slots, owners, positions, asked, ends]: number[][] = [[], [], [], [], []];
    const lay = ([text, slot]: Segment, owner: number, start: number) => {
        const part = states.get(text)!;
        const count = part.length / width;
        parts.push(part);
        for (let place = 0; place < count; place++) {
            slots!.push(SLOTS.indexOf(slot));
            owners!.push(owner);
            positions!.push(start + place);
        }
        return start + count;
    };
    let length = 0;
    for (const segment of row.context) ends!.push((length = lay(segment, 0, length)));
    row.candidates.forEach((block, number) => {
        block.reduce((start, segment) => lay(segment, number + 1, start), length);
        asked!.push(slots!.length - 1);
    });
    const behaviours = row.traces.length / NUM_TRACES;
    const traced = ends!.slice(row.context.length - behaviours).map((end) => end - 1);
    const table = new Float32Array(slots!.length * width);
    let place = 0;
    for (const part of parts) {
        table.set(part, place);
        place += part.length;
    }
    const count = row.candidates.length;
    return {
        states: new Tensor("float32", table, [slots!.length, width]),
        slots: whole(slots!),
        owners: whole(owners!),
        positions: whole(positions!),
        traces: new Tensor("float32", Float32Array.from(row.traces), [behaviours, row.signals.length ? NUM_TRACES : 0]),
        traced: whole(traced),
        signals: new Tensor("float32", row.signals, [count, row.signals.length ? NUM_STATISTICS : 0]),
        asked: whole(asked!),
    };
}

/** Whole numbers as the graphs take them. */
export function whole(numbers: readonly number[]): Tensor {
    return new Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
}
