// Whom the list is for. It lives in the page alone: the service is asked with it and keeps nothing.

import { computed, signal } from "@preact/signals";
import { type Asked, getUser, type HistoryEvent, type Item, itemsOf, type StoredEvent, type User } from "./api.ts";

/** A line of a history. */
export interface Told {
    event: HistoryEvent;
    title: string;
}
interface Person {
    user: string;
    details: User["details"];
    /** What the service has stored, oldest first; of a long history the latest. */
    stored: Told[];
    num_events: number;
}

const NOBODY: Person = { user: "", details: {}, stored: [], num_events: 0 };
/** As many events as a request may bring. */
export const MOST_EVENTS = 1000;

export const person = signal<Person>(NOBODY);
/** What is told in the page, oldest first, after all that is stored. */
export const told = signal<Told[]>([]);
export const leftOut = signal<Item[]>([]);
/** Categories of which nothing is wanted. */
export const hidden = signal<string[]>([]);
/** As many categories as a request may leave out. */
const MOST_HIDDEN = 32;
/** How the list is spread: over unlike items, or as the categories of what was liked. One of them is 0. */
export const spread = signal({ diversity: 0, calibration: 0 });

export const asked = computed<Asked>(() => ({
    user: person.value.user,
    history: told.value.map(({ event }) => event),
    filters: { exclude: leftOut.value.map(({ id }) => id), exclude_categories: hidden.value },
}));

export function beNobody(history: Told[] = []): void {
    person.value = NOBODY;
    told.value = history.slice(-MOST_EVENTS);
    leftOut.value = [];
    hidden.value = [];
}

export async function beUser(id: string): Promise<void> {
    const user = await getUser(id);
    const latest = user.events.slice(-MOST_EVENTS);
    const titles = await itemsOf(latest.map(({ item }) => item).filter(Boolean));
    person.value = {
        user: user.id,
        details: user.details,
        stored: latest.map((event) => ({ event, title: titles.get(event.item)?.title ?? event.item })),
        num_events: user.events.length,
    };
    told.value = [];
    leftOut.value = [];
    hidden.value = [];
}

/** Adds what is said of an item in the page; it takes the place of what was said there before. */
export function say(item: Item, kind: "like" | "dislike"): void {
    const others = told.value.filter(({ event }) => event.item !== item.id || event.time);
    told.value = [...others, { event: { item: item.id, kind }, title: item.title }].slice(-MOST_EVENTS);
}

export function hide(category: string): void {
    hidden.value = [...hidden.value.filter((one) => one !== category), category].slice(-MOST_HIDDEN);
}

export function unsay(one: Told): void {
    told.value = told.value.filter((other) => other !== one);
}

export function turn(one: Told): void {
    const kind = one.event.kind === "dislike" ? "like" : "dislike";
    told.value = told.value.map((other) => (other === one ? { ...one, event: { item: one.event.item ?? "", kind } } : other));
}

/** The stored history as one that can be edited; the user's details stay behind. */
export function editCopy(): void {
    const copy = ({ event, title }: Told): Told => {
        const { item, time, value, text, kind } = event as StoredEvent;
        const kept: HistoryEvent = { time };
        if (item) kept.item = item;
        if (value != null) kept.value = value;
        if (text) kept.text = text;
        if (kind) kept.kind = kind;
        return { event: kept, title };
    };
    beNobody([...person.value.stored.map(copy), ...told.value]);
}
