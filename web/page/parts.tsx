// What both views are made of.

import type { ComponentChildren, JSX } from "preact";
import { useCallback, useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Item, Problem, type Ranked } from "./api.ts";
import { language } from "./settings.ts";
import { words } from "./words.ts";

export interface Answer<T> {
    value: T | undefined;
    error: unknown;
    busy: boolean;
    retry: () => void;
}

/** What `ask` answers for `about`, asked anew when that changes; the last answer stays until the next is here. */
export function useAnswer<T>(ask: (signal: AbortSignal) => Promise<T>, about: unknown, wait_ms = 0): Answer<T> {
    const [state, setState] = useState<{ value?: T; error?: unknown; answers?: string }>({});
    const [tries, setTries] = useState(0);
    const subject = `${tries} ${JSON.stringify(about)}`;
    useEffect(() => {
        const leaving = new AbortController();
        const timer = setTimeout(() => {
            ask(leaving.signal).then(
                (value) => leaving.signal.aborted || setState({ value, answers: subject }),
                (error) => leaving.signal.aborted || setState(({ value }) => ({ ...(value === undefined ? {} : { value }), error, answers: subject })),
            );
        }, wait_ms);
        return () => {
            clearTimeout(timer);
            leaving.abort();
        };
    }, [subject]);
    const retry = useCallback(() => setTries((count) => count + 1), []);
    const busy = state.answers !== subject;
    return { value: state.value, error: busy ? undefined : state.error, busy, retry };
}

export function message(error: unknown): string {
    if (!(error instanceof Problem)) return error instanceof Error ? error.message : String(error);
    return error.type === "unreachable" ? words.value.unreachable : error.message;
}

export function Trouble({ error, retry }: { error: unknown; retry?: () => void }): JSX.Element | null {
    if (!error) return null;
    const request = error instanceof Problem ? error.request : "";
    return (
        <div class="trouble" role="alert">
            <p>{message(error)}</p>
            {request && <p class="quiet">{words.value.request(request)}</p>}
            {retry && <button onClick={retry}>{words.value.retry}</button>}
        </div>
    );
}

/** The children, once there is an answer; before that what is coming, and what went wrong instead. */
export function Waiting<T>({ answer, lines, children }: { answer: Answer<T>; lines: number; children: (value: T) => ComponentChildren }): JSX.Element {
    return (
        <>
            <Trouble error={answer.error} retry={answer.retry} />
            {answer.value !== undefined
                ? children(answer.value)
                : answer.busy && (
                      <div class="ghosts" role="status" aria-label={words.value.loading}>
                          {Array.from({ length: lines }, (_, line) => (
                              <span class="ghost" key={line} />
                          ))}
                      </div>
                  )}
        </>
    );
}

interface PickProps<T> {
    label: string;
    find: (typed: string, signal: AbortSignal) => Promise<T[]>;
    id: (found: T) => string;
    show: (found: T) => ComponentChildren;
    onPick: (found: T) => void;
}

/** A field whose matches come as one types (the combobox pattern of ARIA). */
export function Pick<T>({ label, find, id, show, onPick }: PickProps<T>): JSX.Element {
    const name = useId();
    const [typed, setTyped] = useState("");
    const [open, setOpen] = useState(false);
    const [at, setAt] = useState(-1);
    const hurried = useRef(false); // who pressed Enter before the matches were here gets the first
    const answer = useAnswer<T[] | null>((signal) => (open ? find(typed, signal) : Promise.resolve(null)), [typed, open], 120);
    const found = answer.value ?? [];

    useEffect(() => {
        const [first] = found;
        if (hurried.current && !answer.busy && first !== undefined) pick(first);
        if (!answer.busy) hurried.current = false;
    }, [answer.busy]);
    const pick = (one: T): void => {
        setOpen(false);
        setTyped("");
        setAt(-1);
        onPick(one);
    };
    const press = (event: KeyboardEvent): void => {
        if (event.isComposing) return;
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            event.preventDefault();
            setOpen(true);
            const step = event.key === "ArrowDown" ? 1 : -1;
            if (found.length) setAt((at < 0 && step < 0 ? found.length : at + step + found.length) % found.length);
        } else if (event.key === "Enter") {
            const one = found[Math.max(at, 0)];
            if (answer.busy) hurried.current = open;
            else if (open && one !== undefined) pick(one);
            event.preventDefault();
        } else if (event.key === "Escape") setOpen(false);
    };
    return (
        <div class="pick">
            <label for={name}>{label}</label>
            <input
                id={name}
                role="combobox"
                autocomplete="off"
                spellcheck={false}
                aria-expanded={open}
                aria-controls={`${name}-found`}
                aria-autocomplete="list"
                {...(open && at >= 0 ? { "aria-activedescendant": `${name}-${at}` } : {})}
                value={typed}
                onInput={(event) => {
                    setTyped(event.currentTarget.value);
                    setOpen(true);
                    setAt(-1);
                    hurried.current = false;
                }}
                onFocus={() => setOpen(true)}
                onBlur={() => setOpen(false)}
                onKeyDown={press}
            />
            <ul id={`${name}-found`} role="listbox" aria-label={label} hidden={!open || !found.length}>
                {found.map((one, place) => (
                    <li
                        key={id(one)}
                        id={`${name}-${place}`}
                        role="option"
                        aria-selected={place === at}
                        onMouseDown={(event) => event.preventDefault()} // which would take the focus away
                        onClick={() => pick(one)}
                    >
                        {show(one)}
                    </li>
                ))}
            </ul>
            {open && !found.length && !answer.busy && (
                <p class="pick-none" role="status">
                    {answer.error ? message(answer.error) : words.value.noMatch}
                </p>
            )}
        </div>
    );
}

interface TableProps {
    /** Names of the columns. */
    columns: string[];
    /** What names the table: a text, or an element by `aria-labelledby`. */
    label: { "aria-label": string } | { "aria-labelledby": string };
    tall?: boolean;
    children: ComponentChildren;
}

/** A table that scrolls where it is too wide, by keyboard too; the children are its rows. */
export function Table({ columns, label, tall, children }: TableProps): JSX.Element {
    return (
        <div class={tall ? "wide tall" : "wide"} tabIndex={0} role="group" {...label}>
            <table>
                <thead>
                    <tr>
                        {columns.map((name) => (
                            <th scope="col" key={name}>
                                {name}
                            </th>
                        ))}
                    </tr>
                </thead>
                <tbody>{children}</tbody>
            </table>
        </div>
    );
}

export const ItemLine = ({ item }: { item: Item }): JSX.Element => (
    <>
        <span class="title">{item.title}</span>
        <span class="quiet">{item.categories.slice(0, 3).join(", ")}</span>
    </>
);

export function ItemTitle({ item }: { item: { id: string; title: string } }): JSX.Element {
    return (
        <a class="title" href={`#/item/${encodeURIComponent(item.id)}`}>
            {item.title}
        </a>
    );
}

/** A short list of items, best first. */
export function Lines({ items, mark, score }: { items: Ranked[]; mark?: Set<string>; score?: boolean }): JSX.Element {
    if (!items.length) return <p class="quiet">{words.value.noMatch}</p>;
    return (
        <ol class="lines">
            {items.map(({ item, score: given }) => (
                <li key={item.id}>
                    <ItemTitle item={item} />
                    {mark?.has(item.id) && <span class="mark" role="img" aria-label={words.value.inBoth} title={words.value.inBoth} />}
                    {score && <span class="number">{given.toFixed(2)}</span>}
                    <span class="quiet rest">{item.categories.slice(0, 2).join(", ")}</span>
                </li>
            ))}
        </ol>
    );
}

export interface Moves {
    /** Places gained by id; null where it is new. */
    by: Map<string, number | null>;
    text: string;
}

/** How an order differs from the one before it. */
export function useMoves(ids: string[] | undefined): Moves {
    const before = useRef<string[] | undefined>(undefined);
    const moves = useRef<Moves>({ by: new Map(), text: "" });
    if (ids && ids.join("\n") !== before.current?.join("\n")) {
        const places = new Map(before.current?.map((id, place) => [id, place]));
        const by = new Map<string, number | null>();
        if (before.current)
            ids.forEach((id, place) => {
                const old = places.get(id);
                if (old !== place) by.set(id, old === undefined ? null : old - place);
            });
        const [rose, fell, fresh] = [...by.values()].reduce<[number, number, number]>(
            ([up, down, anew], step) => [up + Number((step ?? 0) > 0), down + Number((step ?? 0) < 0), anew + Number(step === null)],
            [0, 0, 0],
        );
        moves.current = { by, text: by.size ? words.value.changed(rose, fell, fresh) : "" };
        before.current = ids;
    }
    return moves.current;
}

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

const EASING = "cubic-bezier(.2, .7, .2, 1)";

/** Lets the children of a list glide to their new places when `ids` change, and keeps the focus at its place. */
export function useGlide(ids: string): { current: HTMLOListElement | null } {
    const list = useRef<HTMLOListElement>(null);
    const last = useRef(ids);
    const tops = new Map<Element, number>();
    let focused: [place: number, button: number] | undefined;
    if (ids !== last.current)
        [...(list.current?.children ?? [])].forEach((child, place) => {
            tops.set(child, (child as HTMLElement).offsetTop);
            const button = [...child.querySelectorAll("button")].indexOf(document.activeElement as HTMLButtonElement);
            if (button >= 0) focused = [place, button];
        });
    useLayoutEffect(() => {
        last.current = ids;
        for (const child of list.current?.children ?? []) {
            if (STILL.matches || !tops.size) break;
            const step = (tops.get(child) ?? NaN) - (child as HTMLElement).offsetTop;
            if (Number.isNaN(step))
                child.animate([{ opacity: 0, transform: "translateX(12px)" }, { opacity: 1, transform: "none" }], { duration: 420, easing: EASING });
            else if (step) child.animate([{ transform: `translateY(${step}px)` }, { transform: "none" }], { duration: 480, easing: EASING });
        }
        if (focused && !list.current?.contains(document.activeElement))
            list.current?.children[focused[0]]?.querySelectorAll("button")[focused[1]]?.focus();
    }, [ids]);
    return list;
}

export const day = (time: number): string => new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeZone: "UTC" }).format(time * 1000);

export const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

const locale = (): string => (language.value === "zh" ? "zh-Hans" : "en-GB");

export const count = (value: number): string => new Intl.NumberFormat(locale()).format(value);

export const moment = (time: number): string => new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(time * 1000);

export function bytes(value: number): string {
    const [unit, size]: [string, number] = value < 1e6 ? ["kilobyte", 1e3] : value < 1e9 ? ["megabyte", 1e6] : ["gigabyte", 1e9];
    return new Intl.NumberFormat(locale(), { style: "unit", unit, maximumFractionDigits: 1 }).format(value / size);
}

const UNITS: ["day" | "hour" | "minute" | "second", number][] = [
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
    ["second", 1],
];

/** A span of time in its largest unit. */
function spanOf(seconds: number): ["day" | "hour" | "minute" | "second", number] {
    const [unit, size] = UNITS.find(([, one]) => seconds >= one) ?? ["second", 1];
    return [unit, Math.round(seconds / size)];
}

export function duration(seconds: number): string {
    const [unit, value] = spanOf(seconds);
    return new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay: "long" }).format(value);
}

export function ago(time: number, now: number): string {
    const [unit, value] = spanOf(Math.max(0, now - time));
    return new Intl.RelativeTimeFormat(locale(), { numeric: "auto" }).format(-value, unit);
}
