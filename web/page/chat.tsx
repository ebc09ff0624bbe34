// A conversation with the recommender, and texts that it makes for a user.

import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { chat, create, findItems, type Found, type Item, type Made, type Message } from "./api.ts";
import { ItemLine, ItemTitle, Pick, Trouble } from "./parts.tsx";
import { Who } from "./person.tsx";
import { person } from "./state.ts";
import { words } from "./words.ts";

export function ChatView(): JSX.Element {
    const { user } = person.value;
    return (
        <main class="chat">
            <h1 class="unseen">{words.value.chat}</h1>
            <div class="column">
                <Who />
            </div>
            <Conversation user={user} key={user} />
            <aside class="column" aria-label={words.value.ofChat.create}>
                <Create user={user} />
            </aside>
        </main>
    );
}

/** A message, and what a reply of the service rests on. */
interface Said extends Message {
    found?: Found;
    cut?: boolean;
}

function Conversation({ user }: { user: string }): JSX.Element {
    const told = words.value.ofChat;
    const name = useId();
    const [typed, setTyped] = useState("");
    const [said, setSaid] = useState<Said[]>([]);
    const [state, setState] = useState<{ error?: unknown; busy?: boolean }>({});
    const leaving = useRef<AbortController>(undefined);
    useEffect(() => () => leaving.current?.abort(), []);

    const send = async (text: string): Promise<void> => {
        const before: Said[] = [...said, { role: "user", content: text }];
        const controller = (leaving.current = new AbortController());
        let reply: Said = { role: "assistant", content: "" };
        setTyped("");
        setState({ busy: true });
        setSaid([...before, reply]);
        try {
            const messages = before.map(({ role, content }) => ({ role, content }));
            for await (const piece of chat(user, messages, controller.signal)) {
                reply = typeof piece === "string" ? { ...reply, content: reply.content + piece } : { ...reply, found: piece };
                setSaid([...before, reply]);
            }
            setState({});
        } catch (error) {
            // What was read of it stays; an answer that never began can be asked for again.
            setSaid(reply.content ? [...before, { ...reply, cut: true }] : said);
            if (!reply.content) setTyped(text);
            setState(controller.signal.aborted ? {} : { error });
        }
    };
    return (
        <section class="conversation" aria-labelledby="conversation">
            <header>
                <h2 id="conversation">{told.conversation}</h2>
                {said.length > 0 && (
                    <button class="plain" disabled={state.busy} onClick={() => setSaid([])}>
                        {told.clear}
                    </button>
                )}
            </header>
            {!said.length && <p class="quiet">{told.help}</p>}
            <div role="log" aria-labelledby="conversation" aria-busy={Boolean(state.busy)}>
                <ol class="messages">
                    {said.map((one, place) => (
                        <li key={place} class={one.role}>
                            <span class="unseen">{one.role === "user" ? told.you : told.reply}: </span>
                            <p>{one.content || <span class="quiet">{told.writes}</span>}</p>
                            {one.cut && <p class="quiet">{told.cut}</p>}
                            {one.found && <Rests found={one.found} />}
                        </li>
                    ))}
                </ol>
            </div>
            <Trouble error={state.error} />
            {!said.length && (
                <div class="row">
                    <button onClick={() => void send(told.example)}>{told.example}</button>
                </div>
            )}
            <form
                onSubmit={(event) => {
                    event.preventDefault();
                    if (typed.trim() && !state.busy) void send(typed.trim());
                }}
            >
                <label for={name}>{told.say}</label>
                <div class="line">
                    <input id={name} autocomplete="off" maxLength={4000} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
                    {state.busy ? (
                        <button type="button" onClick={() => leaving.current?.abort()}>
                            {told.stop}
                        </button>
                    ) : (
                        <button class="main" disabled={!typed.trim()}>
                            {told.send}
                        </button>
                    )}
                </div>
            </form>
        </section>
    );
}

/** The items that a reply names, and the reasons of the first. */
function Rests({ found }: { found: Found }): JSX.Element {
    return (
        <>
            {found.items.length > 0 && (
                <ol class="named">
                    {found.items.map(({ item }) => (
                        <li key={item.id}>
                            <ItemTitle item={item} /> <span class="quiet">{item.categories.slice(0, 3).join(", ")}</span>
                        </li>
                    ))}
                </ol>
            )}
            {found.reasons.length > 0 && <p class="quiet">{found.reasons.every(({ source }) => source === "model") ? words.value.byModel : words.value.byTemplate}</p>}
        </>
    );
}

type Kind = "design" | "query" | "headline";
const KINDS: Kind[] = ["design", "query", "headline"];

function Create({ user }: { user: string }): JSX.Element {
    const told = words.value.ofChat;
    const [kindName, categoryName, countName, catalogueName] = [useId(), useId(), useId(), useId()];
    const [kind, setKind] = useState<Kind>("design");
    const [item, setItem] = useState<Item>();
    const [category, setCategory] = useState("");
    const [catalogue, setCatalogue] = useState(false);
    const [count, setCount] = useState(3);
    const [state, setState] = useState<{ made?: Made[]; error?: unknown; busy?: boolean }>({});
    const leaving = useRef<AbortController>(undefined);
    useEffect(() => {
        setState({});
        return () => leaving.current?.abort();
    }, [user]);

    const make = async (): Promise<void> => {
        const controller = (leaving.current = new AbortController());
        setState({ busy: true });
        const about = kind === "headline" ? { item: item?.id ?? "" } : kind === "design" ? { catalogue, ...(category.trim() ? { category: category.trim() } : {}) } : {};
        try {
            setState({ made: await create({ user, kind, count, ...about }, controller.signal) });
        } catch (error) {
            if (!controller.signal.aborted) setState({ error });
        }
    };
    return (
        <section aria-labelledby="create">
            <h2 id="create">{told.create}</h2>
            <p class="quiet">{user ? told.createHelp : told.needsUser}</p>
            <div class="field">
                <label for={kindName}>{told.kind}</label>
                <select id={kindName} value={kind} onChange={(event) => setKind(event.currentTarget.value as Kind)}>
                    {KINDS.map((one) => (
                        <option key={one} value={one}>
                            {told.kinds[one]}
                        </option>
                    ))}
                </select>
            </div>
            {kind === "headline" && (
                <>
                    <Pick label={told.pickItem} find={findItems} id={({ id }) => id} show={(one) => <ItemLine item={one} />} onPick={setItem} />
                    {item && (
                        <p>
                            {told.item}: <ItemTitle item={item} />
                        </p>
                    )}
                </>
            )}
            <form
                onSubmit={(event) => {
                    event.preventDefault();
                    void make();
                }}
            >
                {kind === "design" && (
                    <>
                        <div class="field">
                            <label for={categoryName}>{told.category}</label>
                            <input id={categoryName} value={category} onInput={(event) => setCategory(event.currentTarget.value)} />
                        </div>
                        <div class="tick">
                            <input id={catalogueName} type="checkbox" checked={catalogue} onChange={(event) => setCatalogue(event.currentTarget.checked)} />
                            <label for={catalogueName}>{told.catalogue}</label>
                        </div>
                    </>
                )}
                <div class="field">
                    <label for={countName}>{told.count}</label>
                    <input id={countName} type="number" min={1} max={10} value={count} onInput={(event) => setCount(Math.max(1, Math.min(10, Number(event.currentTarget.value) || 1)))} />
                </div>
                <button class="main" disabled={!user || state.busy || (kind === "headline" && !item)}>
                    {told.make}
                </button>
            </form>
            <p role="status">{state.busy ? told.making : ""}</p>
            <Trouble error={state.error} />
            {state.made && (
                <ol class="made">
                    {state.made.map((one, place) => (
                        <li key={place}>
                            <MadeText made={one} />
                        </li>
                    ))}
                </ol>
            )}
        </section>
    );
}

/** A text, whose it is, and why others were refused before it. */
function MadeText({ made }: { made: Made }): JSX.Element {
    const told = words.value.ofChat;
    const times = new Map<string, number>();
    for (const why of made.rejected) times.set(why, (times.get(why) ?? 0) + 1);
    return (
        <>
            <p class="text">{made.item ? <ItemTitle item={{ id: made.item, title: made.text }} /> : made.text}</p>
            <p class="quiet">{[made.source === "model" ? told.byModel : told.byTemplate, made.category].filter(Boolean).join(" · ")}</p>
            {times.size > 0 && (
                <>
                    <p class="quiet">{told.refused}</p>
                    <ul class="refused" lang="en">
                        {[...times].map(([why, number]) => (
                            <li key={why}>{told.times(why, number)}</li>
                        ))}
                    </ul>
                </>
            )}
        </>
    );
}
