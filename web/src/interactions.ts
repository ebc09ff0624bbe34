/**
 * What was known before a question: `m6rec/features` for one user, of whom no other user is a neighbour.
 *
 * Tests hold it to what Python computes.
 */

import {
    CATEGORY_PRIOR,
    ITEM_PRIOR,
    LATEST,
    NEAR_PRIOR,
    NEAR_SPREADS,
    NUM_FEATURES,
    RECENT_MEMORY,
    USER_PRIOR,
} from "./features.js";
import type { Count, Event, Item, Known, Scales } from "./types.js";

/** A number of an item, on a logarithmic scale; undefined where it has none of the name. */
function numberOf(item: Item | undefined, name: string): number | undefined {
    const value = item?.details[name];
    return typeof value === "number" && Number.isFinite(value) ? Math.sign(value) * Math.log1p(Math.abs(value)) : undefined;
}

/** The user's events, and counts of what everyone did. */
export class InteractionStore {
    readonly events: Event[] = [];
    /** `NUM_EVENT_FEATURES` numbers of each event. */
    readonly eventFeatures: number[] = [];
    private readonly counts = new Map<string, [events: number, likes: number, values: number]>();
    /** Of each of the latest events: its item, whether it was liked, the surprise of its value. */
    private latest: [item: Item | undefined, like: number, surprise: number][] = [];
    private total: [events: number, likes: number, values: number];
    private likes = 0;
    private recent = 0;
    private surprise = 0;
    private values = 0;
    private valueSurprise = 0;
    private recentValueSurprise = 0;

    constructor(
        private readonly items: ReadonlyMap<string, Known>,
        total: Count,
        private readonly scales: Scales,
    ) {
        this.total = [...total];
        for (const { item, count } of items.values()) if (count) this.counts.set(item.id, [...count]);
    }

    /** Takes in the user's next event, and what it says. */
    update(event: Event, liked: boolean, strength: number): void {
        const like = Number(liked);
        const count = this.count(event.item);
        const share = this.itemShare(event.item);
        const surprise = like - share - this.surprise / (this.events.length + USER_PRIOR);
        const last = this.events.at(-1);
        const valueSurprise = strength - this.itemValue(event.item, strength);
        const pause = last ? Math.log1p(Math.max(0, event.time - last.time)) : 0;
        this.eventFeatures.push(like, strength, valueSurprise, surprise, share, Math.log1p(count[0]), pause);
        this.surprise += like - share;
        this.values += strength;
        this.valueSurprise += valueSurprise;
        this.recentValueSurprise = RECENT_MEMORY * this.recentValueSurprise + (1 - RECENT_MEMORY) * valueSurprise;
        this.latest = [...this.latest.slice(1 - LATEST), [this.items.get(event.item)?.item, like, valueSurprise]];
        this.recent = RECENT_MEMORY * (last ? this.recent : this.likeRate) + (1 - RECENT_MEMORY) * like;
        this.events.push(event);
        this.likes += like;
        this.counts.set(event.item, [count[0] + 1, count[1] + like, count[2] + strength]);
        this.total = [this.total[0] + 1, this.total[1] + like, this.total[2] + strength];
    }

    /** `NUM_FEATURES` numbers of the user with each item. */
    features(items: readonly string[]): Float32Array {
        const count = this.events.length;
        const rate = this.likeRate;
        const userShare = (this.likes + USER_PRIOR * rate) / (count + USER_PRIOR);
        const recent = count ? this.recent : rate;
        const surprise = this.surprise / (count + USER_PRIOR);
        const userValue = (this.values + USER_PRIOR * this.meanValue(0)) / (count + USER_PRIOR);
        const valueSurprise = this.valueSurprise / (count + USER_PRIOR);
        const table = new Float32Array(items.length * NUM_FEATURES);
        items.forEach((item, row) => {
            const share = this.itemShare(item);
            const seen = Math.log1p(this.count(item)[0]);
            const [category, categorySurprise] = this.ofCategories(item, userShare, valueSurprise);
            const neighbours = [share, share, share, 0, 0, 0];
            table.set(
                [
                    ...[userShare, Math.log1p(count), recent, share, seen, category, ...neighbours, surprise],
                    ...[userValue, this.itemValue(item, 0), valueSurprise, this.recentValueSurprise, categorySurprise],
                    ...this.near(item, userShare, valueSurprise),
                ],
                row * NUM_FEATURES,
            );
        });
        return table;
    }

    private get likeRate(): number {
        return this.total[0] ? this.total[1] / this.total[0] : 0.5;
    }

    private count(item: string): Count {
        return this.counts.get(item) ?? [0, 0, 0];
    }

    private itemShare(item: string): number {
        const [events, likes] = this.count(item);
        return (likes + ITEM_PRIOR * this.likeRate) / (events + ITEM_PRIOR);
    }

    /** Mean value of all events; `first` before there is one. */
    private meanValue(first: number): number {
        return this.total[0] ? this.total[2] / this.total[0] : first;
    }

    private itemValue(item: string, first: number): number {
        const [events, , values] = this.count(item);
        return (values + ITEM_PRIOR * this.meanValue(first)) / (events + ITEM_PRIOR);
    }

    private ofCategories(item: string, userShare: number, valueSurprise: number): [share: number, surprise: number] {
        const categories = this.items.get(item)?.item.categories ?? [];
        let [likes, events, sum] = [0, 0, 0];
        for (const [other, like, surprise] of this.latest) {
            for (const category of other?.categories ?? []) {
                const times = categories.filter((own) => own === category).length;
                [likes, events, sum] = [likes + times * like, events + times, sum + times * surprise];
            }
        }
        return [
            (likes + CATEGORY_PRIOR * userShare) / (events + CATEGORY_PRIOR),
            (sum + CATEGORY_PRIOR * valueSurprise) / (events + CATEGORY_PRIOR),
        ];
    }

    /** Of the latest events, by how near their items' numbers are to this one. */
    private near(item: string, userShare: number, valueSurprise: number): [share: number, surprise: number] {
        const asked = this.items.get(item)?.item;
        let [likes, weights, sum] = [0, 0, 0];
        for (const [other, like, surprise] of this.latest) {
            const apart = Object.entries(this.scales).flatMap(([name, scale]) => {
                const [one, two] = [numberOf(asked, name), numberOf(other, name)];
                return scale > 0 && one !== undefined && two !== undefined ? [Math.abs(one - two) / (NEAR_SPREADS * scale)] : [];
            });
            if (!apart.length) continue;
            const weight = Math.exp(-apart.reduce((total, one) => total + one, 0) / apart.length);
            [likes, weights, sum] = [likes + weight * like, weights + weight, sum + weight * surprise];
        }
        return [
            (likes + NEAR_PRIOR * userShare) / (weights + NEAR_PRIOR),
            (sum + NEAR_PRIOR * valueSurprise) / (weights + NEAR_PRIOR),
        ];
    }
}
