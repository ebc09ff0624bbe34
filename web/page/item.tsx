// An item: what is near it, and where another one would land.

import type { JSX } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import { findItems, getItem, type Item, neighbours, putItem } from "./api.ts";
import { ItemLine, ItemTitle, Lines, Pick, Trouble, useAnswer, Waiting } from "./parts.tsx";
import { beNobody, say } from "./state.ts";
import { words } from "./words.ts";

const go = (id: string): string => (location.hash = `#/item/${encodeURIComponent(id)}`);

export function ItemView({ id }: { id: string }): JSX.Element {
    const [written, setWritten] = useState(0);
    return (
        <main class="item">
            <h1 class="unseen">{words.value.item}</h1>
            <div class="column">
                <section>
                    <Pick label={words.value.findItem} find={findItems} id={(item) => item.id} show={(item) => <ItemLine item={item} />} onPick={(item) => go(item.id)} />
                    {id ? <Shown id={id} key={`${id} ${written}`} /> : <Popular />}
                </section>
            </div>
            {id && (
                <div class="both">
                    <Near id={id} by="text" key={`text ${id} ${written}`} />
                    <Near id={id} by="behaviour" key={`behaviour ${id} ${written}`} />
                </div>
            )}
            <aside class="column" aria-label={words.value.editItem}>
                <Editor id={id} written={() => setWritten(written + 1)} />
            </aside>
        </main>
    );
}

function Popular(): JSX.Element {
    const answer = useAnswer((signal) => findItems("", signal), "popular");
    return (
        <>
            <p class="quiet">{words.value.pickItem}</p>
            <h2>{words.value.popularItems}</h2>
            <Waiting answer={answer} lines={8}>
                {(items) => (
                    <ul class="lines">
                        {items.map((item) => (
                            <li key={item.id}>
                                <ItemTitle item={item} />
                                <span class="quiet rest">{item.categories.slice(0, 2).join(", ")}</span>
                            </li>
                        ))}
                    </ul>
                )}
            </Waiting>
        </>
    );
}

function Shown({ id }: { id: string }): JSX.Element {
    const answer = useAnswer((signal) => getItem(id, signal), id);
    const recommendFrom = (item: Item): void => {
        beNobody();
        say(item, "like");
        location.hash = "#/person";
    };
    return (
        <Waiting answer={answer} lines={3}>
            {({ item, num_likes }) => (
                <>
                    <h2 class="big">{item.title}</h2>
                    <ul class="chips">
                        {item.categories.map((name) => (
                            <li key={name}>{name}</li>
                        ))}
                    </ul>
                    <p>{num_likes === undefined ? words.value.likedByFew : words.value.likedBy(num_likes.toLocaleString())}</p>
                    <dl class="facts">
                        <dt>{words.value.id}</dt>
                        <dd>{item.id}</dd>
                        {Object.entries(item.details).map(([name, value]) => (
                            <>
                                <dt>{name}</dt>
                                <dd>{String(value)}</dd>
                            </>
                        ))}
                    </dl>
                    <button onClick={() => recommendFrom(item)}>{words.value.recommendFrom}</button>
                </>
            )}
        </Waiting>
    );
}

function Near({ id, by }: { id: string; by: "text" | "behaviour" }): JSX.Element {
    const answer = useAnswer((signal) => neighbours(id, by, signal), [id, by]);
    const [title, help] = by === "text" ? [words.value.byText, words.value.byTextHelp] : [words.value.byBehaviour, words.value.byBehaviourHelp];
    return (
        <section aria-labelledby={`near-${by}`}>
            <h2 id={`near-${by}`}>{title}</h2>
            <p class="quiet">{help}</p>
            <Waiting answer={answer} lines={10}>
                {(items) => (items.length ? <Lines items={items} score /> : <p class="quiet">{words.value.noNeighbours}</p>)}
            </Waiting>
        </section>
    );
}

interface Form {
    id: string;
    title: string;
    categories: string;
    details: string;
}
const EMPTY: Form = { id: "", title: "", categories: "", details: "" };

const formOf = (item: Item): Form => ({
    id: item.id,
    title: item.title,
    categories: item.categories.join(", "),
    details: Object.entries(item.details)
        .map(([name, value]) => `${name}: ${String(value).replaceAll("\n", " ")}`)
        .join("\n"),
});

function draftOf(form: Form): Item {
    const details: Record<string, string | number> = {};
    for (const line of form.details.split("\n")) {
        const [name = "", value = ""] = line.split(/:(.*)/s).map((part) => part.trim());
        if (name && value) details[name] = Number.isFinite(Number(value)) ? Number(value) : value;
    }
    const categories = form.categories.split(/[,，]/).map((name) => name.trim());
    return { id: form.id.trim(), title: form.title.trim(), categories: categories.filter(Boolean), details };
}

function Editor({ id, written }: { id: string; written: () => void }): JSX.Element {
    const [form, setForm] = useState(EMPTY);
    const [state, setState] = useState<{ error?: unknown; done?: string; busy?: boolean }>({});
    const stored = useAnswer((signal) => (id ? getItem(id, signal) : Promise.resolve(null)), id);
    useEffect(() => setForm(stored.value ? formOf(stored.value.item) : EMPTY), [stored.value?.item.id]);
    const draft = draftOf(form);
    const whole = Boolean(draft.id && draft.title);
    const lands = useAnswer((signal) => (whole ? neighbours(draft, "text", signal) : Promise.resolve(null)), draft, 350);
    const write = async (): Promise<void> => {
        setState({ busy: true });
        try {
            await putItem(draft);
            setState({ done: draft.title });
            if (draft.id === id) written();
            else go(draft.id);
        } catch (error) {
            setState({ error });
        }
    };
    const field = (name: keyof Form, lines = 1): JSX.Element => <Field label={words.value[name]} lines={lines} value={form[name]} change={(value) => setForm({ ...form, [name]: value })} />;
    return (
        <section aria-labelledby="edit">
            <h2 id="edit">{words.value.editItem}</h2>
            <form
                onSubmit={(event) => {
                    event.preventDefault();
                    void write();
                }}
            >
                {field("id")}
                {field("title")}
                {field("categories")}
                {field("details", 4)}
                <button class="main" disabled={!whole || state.busy}>
                    {words.value.write}
                </button>
            </form>
            <p role="status">{state.done ? words.value.written(state.done) : ""}</p>
            <Trouble error={state.error} />
            <h3>{words.value.lands}</h3>
            {whole ? <Waiting answer={lands} lines={8}>{(items) => items && <Lines items={items} score />}</Waiting> : <p class="quiet">{words.value.needsTitle}</p>}
        </section>
    );
}

function Field({ label, value, lines, change }: { label: string; value: string; lines: number; change: (value: string) => void }): JSX.Element {
    const name = useId();
    return (
        <div class="field">
            <label for={name}>{label}</label>
            {lines > 1 ? (
                <textarea id={name} rows={lines} value={value} onInput={(event) => change(event.currentTarget.value)} />
            ) : (
                <input id={name} value={value} onInput={(event) => change(event.currentTarget.value)} />
            )}
        </div>
    );
}
