/** The nouns, as in `m6rec/types.py` and `m6rec/features/interactions.py`. */

/** Something that can be ranked. */
export interface Item {
    readonly id: string;
    readonly title: string;
    readonly categories: readonly string[];
    readonly details: Readonly<Record<string, string | number>>;
}

/** One event of the user: `time` in seconds since 1970, `value` in the unit of the server's log, null where it just happened. */
export interface Event {
    readonly item: string;
    readonly time: number;
    readonly value: number | null;
}

/** An item and the probability that the user likes it. */
export interface Ranked {
    readonly item: Item;
    readonly score: number;
}

/** A text and what it is, one of `SLOTS`. */
export type Segment = readonly [text: string, slot: string];

/** What a service gives a device to rank a recommendation by; see `RankingInputs` of `m6rec/serving/backend.py`. */
export interface RankingInputs {
    readonly model: string;
    readonly tuning: string;
    readonly wording: string;
    readonly features: string;
    readonly context: readonly { readonly text: string; readonly slot: string }[];
    readonly event_features: readonly (readonly number[])[];
    readonly candidates: readonly {
        readonly item: Item;
        readonly segments: RankingInputs["context"];
        readonly features: readonly number[];
    }[];
    readonly orders: readonly (readonly string[])[];
    readonly fusion: number;
}

/** [events, liked events, sum of the strengths of their feedback] */
export type Count = readonly [events: number, likes: number, values: number];

/** How much the items' numbers differ, by name. */
export type Scales = Readonly<Record<string, number>>;

/** How items of one kind are worded: tails that follow the item's own head, and what each value says. */
export interface Kind {
    readonly values: readonly (number | null)[];
    readonly likes: readonly boolean[];
    /** How much the user seems to want the item, from 0 to 1. */
    readonly strengths: readonly number[];
    readonly events: readonly Segment[];
    readonly candidate: readonly Segment[];
}

/** An item as it came in a bundle. */
export interface Known {
    readonly item: Item;
    readonly head: string;
    readonly kind: Kind;
    /** What others did with it; null where nobody met it. */
    readonly count: Count | null;
}

export const SLOTS = ["user", "history", "candidate", "cross", "ask"];
