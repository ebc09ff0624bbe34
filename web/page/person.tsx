// A person: what they did, what is recommended to them, and why.

import type { JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { explain, findItems, findUsers, getDevice, inspect, type Item, type Placement, type Ranked, recommend, type Recommended, retrieve } from "./api.ts";
import { coming, here, leave, type RankedHere, rankHere } from "./device.ts";
import { bytes, day, ItemLine, ItemTitle, Lines, message, percent, Pick, Trouble, useAnswer, useGlide, useMoves, Waiting } from "./parts.tsx";
import { paste } from "./paste.ts";
import { asked, beNobody, beUser, editCopy, hidden, hide, leftOut, person, say, spread, told, type Told, turn, unsay } from "./state.ts";
import { words } from "./words.ts";

const COUNT = 12;
const BESIDE = 10;
const EVENTS_SHOWN = 40;

type List = { user: string } & (Recommended | RankedHere);

export function PersonView(): JSX.Element {
    const list = useAnswer(
        async (signal): Promise<List> => {
            const { user } = asked.value;
            if (here.value) return { user, ...(await rankHere(asked.value, COUNT, signal)) };
            return { user, ...(await recommend(asked.value, COUNT, spread.value, signal)) };
        },
        [asked.value, here.value || spread.value],
    );
    const folder = useAnswer(getDevice, "device");
    const there = new Set(list.value?.items.map(({ item }) => item.id));
    return (
        <main class="person">
            <h1 class="unseen">{words.value.person}</h1>
            <div class="column">
                <Who />
                <History />
            </div>
            <section class="recommended" aria-labelledby="recommended">
                <header>
                    <h2 id="recommended">{words.value.recommended}</h2>
                    <Slider name="diversity" />
                    <Slider name="calibration" />
                </header>
                {folder.value?.dtype && <Switch />}
                <Waiting answer={list} lines={8}>
                    {({ user, items, timings_ms, ...rest }) => (
                        <>
                            {"differ" in rest && <BesideServer list={rest} of={items.length} />}
                            <Cards key={user} items={items} busy={list.busy} />
                            <Stages timings={timings_ms ?? {}} />
                        </>
                    )}
                </Waiting>
                {folder.value && !folder.value.dtype && <p class="quiet">{folder.value.problem ?? words.value.noDevice}</p>}
            </section>
            <aside class="column" aria-label={words.value.beside}>
                <WhyNot />
                <Beside there={there} />
                <Reads />
            </aside>
        </main>
    );
}

/** Whether the service ranks or this page does. */
function Switch(): JSX.Element {
    const name = useId();
    return (
        <fieldset class="switch">
            <legend>{words.value.rankedBy}</legend>
            <label>
                <input type="radio" name={name} checked={!here.value} onChange={leave} />
                {words.value.byServer}
            </label>
            <label>
                <input type="radio" name={name} checked={here.value} onChange={() => (here.value = true)} />
                {words.value.onDevice}
            </label>
            <Coming />
        </fieldset>
    );
}

function Coming(): JSX.Element | null {
    if (!coming.value) return null;
    const { done, total } = coming.value;
    const told = total ? words.value.coming(bytes(done), bytes(total)) : words.value.loading;
    return (
        <span class="coming">
            <progress {...(total ? { max: total, value: done } : {})} aria-label={words.value.onDevice} />
            <span class="quiet">{told}</span>
        </span>
    );
}

/** Whether the order is the service's, and why not if it isn't. */
function BesideServer({ list: { differ, other, dtype }, of }: { list: Pick<RankedHere, "differ" | "other" | "dtype">; of: number }): JSX.Element {
    const told = words.value;
    return (
        <p class="quiet" role="status">
            {differ ? told.differ(differ, of) : told.sameOrder(of)} {other && told.otherFolder[other](dtype)}
        </p>
    );
}

export function Who(): JSX.Element {
    const [error, setError] = useState<unknown>();
    const { user, details } = person.value;
    const choose = (id: string): void => {
        setError(undefined);
        beUser(id).catch(setError);
    };
    return (
        <section aria-labelledby="who">
            <h2 id="who">{words.value.who}</h2>
            <p class="who">{user ? words.value.userNamed(user) : words.value.nobody}</p>
            {Object.keys(details).length > 0 && (
                <ul class="chips">
                    {Object.entries(details).map(([name, value]) => (
                        <li key={name}>
                            {name} {String(value)}
                        </li>
                    ))}
                </ul>
            )}
            <Pick label={words.value.findUser} find={findUsers} id={String} show={(id) => id} onPick={choose} />
            {(user || told.value.length > 0 || leftOut.value.length > 0 || hidden.value.length > 0) && (
                <button class="plain" onClick={() => beNobody()}>
                    {words.value.asNobody}
                </button>
            )}
            <Trouble error={error} />
        </section>
    );
}

function History(): JSX.Element {
    const [wanted, setWanted] = useState("");
    const [shown, setShown] = useState(EVENTS_SHOWN);
    const [pasting, setPasting] = useState(false);
    const filter = useId();
    const { stored, num_events } = person.value;
    const both = [...told.value].reverse().map((one) => ({ one, here: true }));
    const all = [...both, ...[...stored].reverse().map((one) => ({ one, here: false }))];
    const kept = all.filter(({ one }) => one.title.toLowerCase().includes(wanted.toLowerCase()));
    return (
        <section class="history" aria-labelledby="history">
            <header>
                <h2 id="history">{words.value.history}</h2>
                <span class="quiet">{words.value.numEvents(num_events + told.value.length)}</span>
            </header>
            <Pick label={words.value.addEvent} find={findItems} id={({ id }) => id} show={(item) => <ItemLine item={item} />} onPick={(item) => say(item, "like")} />
            <div class="row">
                {stored.length > 0 && <button onClick={editCopy}>{words.value.edit}</button>}
                <button aria-expanded={pasting} onClick={() => setPasting(!pasting)}>
                    {words.value.paste}
                </button>
            </div>
            {pasting && <Paste done={() => setPasting(false)} />}
            {all.length > 8 && (
                <div class="field">
                    <label for={filter}>{words.value.filterHistory}</label>
                    <input id={filter} type="search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
                </div>
            )}
            {!all.length && <p class="quiet">{words.value.emptyHistory}</p>}
            {all.length > 0 && (
                <ol class="timeline" tabIndex={0} aria-label={words.value.history}>
                    {kept.slice(0, shown).map(({ one, here }, place) => (
                        <Line one={one} here={here} key={place} />
                    ))}
                </ol>
            )}
            {kept.length > shown && (
                <button class="plain" onClick={() => setShown(shown + 100)}>
                    {words.value.more(Math.min(100, kept.length - shown))}
                </button>
            )}
            <Undoing title={words.value.leftOut}>
                {leftOut.value.map((item) => (
                    <li key={item.id}>
                        <ItemTitle item={item} />
                        <Undo about={item.title} undo={() => (leftOut.value = leftOut.value.filter((one) => one !== item))} />
                    </li>
                ))}
            </Undoing>
            <Undoing title={words.value.hidden}>
                {hidden.value.map((category) => (
                    <li key={category}>
                        <span class="title">{category}</span>
                        <Undo about={category} undo={() => (hidden.value = hidden.value.filter((one) => one !== category))} />
                    </li>
                ))}
            </Undoing>
        </section>
    );
}

/** What was left out, if anything was. */
function Undoing({ title, children }: { title: string; children: JSX.Element[] }): JSX.Element | null {
    if (!children.length) return null;
    return (
        <>
            <h3>{title}</h3>
            <ul class="timeline">{children}</ul>
        </>
    );
}

const Undo = ({ about, undo }: { about: string; undo: () => void }): JSX.Element => (
    <button class="plain" onClick={undo} aria-label={`${words.value.undo}${words.value.about(about)}`}>
        {words.value.undo}
    </button>
);

function Line({ one, here }: { one: Told; here: boolean }): JSX.Element {
    const { item, kind, value, time, text } = one.event;
    const says = value != null ? words.value.stars(value) : (words.value.says[kind ?? ""] ?? kind) || words.value.did;
    const opinion = kind === "like" || kind === "dislike";
    return (
        <li class={here ? "here" : ""}>
            {item ? <ItemTitle item={{ id: item, title: one.title }} /> : <span class="title">{words.value.searched(text ?? "")}</span>}
            <span class="quiet">
                {here && opinion ? (
                    <button class={`says ${kind}`} onClick={() => turn(one)} aria-label={`${words.value.flip(says)}${words.value.about(one.title)}`}>
                        {says}
                    </button>
                ) : (
                    says
                )}
                {time ? ` · ${day(time)}` : here ? ` · ${words.value.now}` : ""}
            </span>
            {here && (
                <button class="cross" onClick={() => unsay(one)} aria-label={`${words.value.remove}${words.value.about(one.title)}`}>
                    ×
                </button>
            )}
        </li>
    );
}

function Paste({ done }: { done: () => void }): JSX.Element {
    const name = useId();
    const [text, setText] = useState("");
    const [trouble, setTrouble] = useState("");
    const use = async (): Promise<void> => {
        try {
            const { history, unknown } = await paste(text);
            if (history.length) beNobody(history);
            if (unknown.length) setTrouble(words.value.pasteUnknown(unknown.slice(0, 10)));
            else if (history.length) done();
        } catch (error) {
            setTrouble(message(error));
        }
    };
    return (
        <form
            class="paste"
            onSubmit={(event) => {
                event.preventDefault();
                void use();
            }}
        >
            <label for={name}>{words.value.pasteHelp}</label>
            <textarea id={name} rows={6} spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
            {trouble && <p role="alert">{trouble}</p>}
            <div class="row">
                <button class="main" disabled={!text.trim()}>
                    {words.value.pasteUse}
                </button>
                <button type="button" onClick={done}>
                    {words.value.close}
                </button>
            </div>
        </form>
    );
}

function Slider({ name }: { name: "diversity" | "calibration" }): JSX.Element {
    const id = useId();
    const slide = (value: number): void => {
        spread.value = { diversity: 0, calibration: 0, [name]: value };
    };
    return (
        <div class="slider" title={here.value ? words.value.serverOnly : undefined}>
            <label for={id}>{words.value[name]}</label>
            <input id={id} type="range" min={0} max={1} step={0.1} disabled={here.value} value={spread.value[name]} onInput={(event) => slide(Number(event.currentTarget.value))} />
        </div>
    );
}

function Cards({ items, busy }: { items: Ranked[]; busy: boolean }): JSX.Element {
    const ids = items.map(({ item }) => item.id);
    const moves = useMoves(ids);
    const list = useGlide(ids.join("\n"));
    return (
        <>
            <p class="unseen" role="status">
                {moves.text}
            </p>
            {!items.length && <p class="quiet">{words.value.noneLeft}</p>}
            <ol class="cards" ref={list} aria-busy={busy}>
                {items.map(({ item, score }, place) => (
                    <Card key={item.id} item={item} score={score} place={place + 1} step={moves.by.get(item.id)} />
                ))}
            </ol>
        </>
    );
}

function Card({ item, score, place, step }: { item: Item; score: number; place: number; step: number | null | undefined }): JSX.Element {
    const [open, setOpen] = useState(false);
    const about = words.value.about(item.title);
    const details = Object.entries(item.details).slice(0, 3).map(([name, value]) => `${name} ${String(value).slice(0, 80)}`);
    return (
        <li class="card">
            <span class="place">
                {place}
                <Step step={step} />
            </span>
            <div class="what">
                <h3>
                    <ItemTitle item={item} />
                </h3>
                <div class="about">
                    {item.categories.length > 0 && (
                        <ul class="chips">
                            {item.categories.slice(0, 4).map((category) => (
                                <li key={category}>
                                    {category}
                                    <button class="cross" onClick={() => hide(category)} aria-label={`${words.value.hide(category)}${about}`} title={words.value.hide(category)}>
                                        ×
                                    </button>
                                </li>
                            ))}
                        </ul>
                    )}
                    {details.length > 0 && <p class="quiet">{details.join(" · ")}</p>}
                </div>
            </div>
            <span class="score" title={words.value.chance}>
                <span class="number">{percent(score)}</span>
                <meter min={0} max={1} value={score} aria-label={words.value.chance} />
            </span>
            <div class="row">
                <button onClick={() => say(item, "like")} aria-label={`${words.value.moreLike}${about}`}>
                    {words.value.moreLike}
                </button>
                <button onClick={() => say(item, "dislike")} aria-label={`${words.value.notThis}${about}`}>
                    {words.value.notThis}
                </button>
                <button onClick={() => (leftOut.value = [...leftOut.value, item])} aria-label={`${words.value.seenIt}${about}`}>
                    {words.value.seenIt}
                </button>
                <button class="plain" aria-expanded={open} onClick={() => setOpen(!open)} aria-label={`${words.value.why}${about}`}>
                    {words.value.why}
                </button>
            </div>
            {open && <Why item={item} />}
        </li>
    );
}

function Step({ step }: { step: number | null | undefined }): JSX.Element | null {
    if (step === undefined) return null;
    if (step === null) return <span class="step new">{words.value.isNew}</span>;
    const said = step > 0 ? words.value.rose(step) : words.value.fell(-step);
    return (
        <span class={`step ${step > 0 ? "up" : "down"}`} role="img" aria-label={said} title={said}>
            {step > 0 ? "▲" : "▼"}
            {Math.abs(step)}
        </span>
    );
}

function Why({ item }: { item: Item }): JSX.Element {
    const answer = useAnswer((signal) => explain(asked.value, item.id, signal), [asked.value, item.id]);
    return (
        <div class="why">
            <Waiting answer={answer} lines={2}>
                {({ reasons }) =>
                    reasons.length ? (
                        <>
                            <ul>
                                {reasons.map(({ text }) => (
                                    <li key={text}>{text}</li>
                                ))}
                            </ul>
                            <p class="quiet">{reasons.every(({ source }) => source === "model") ? words.value.byModel : words.value.byTemplate}</p>
                        </>
                    ) : (
                        <p class="quiet">{words.value.noReasons}</p>
                    )
                }
            </Waiting>
        </div>
    );
}

function Stages({ timings }: { timings: Record<string, number> }): JSX.Element {
    return (
        <dl class="stages">
            {Object.entries(timings).map(([stage, ms]) => (
                <div key={stage}>
                    <dt>{words.value.stages[stage] ?? stage}</dt>
                    <dd>{words.value.took(ms.toFixed(1))}</dd>
                </div>
            ))}
        </dl>
    );
}

function Beside({ there }: { there: Set<string> }): JSX.Element {
    const popular = useAnswer((signal) => retrieve(asked.value, "popular", BESIDE, signal), ["popular", asked.value]);
    const text = useAnswer((signal) => retrieve(asked.value, "text", BESIDE, signal), ["text", asked.value]);
    return (
        <>
            <section aria-labelledby="popular">
                <h2 id="popular">{words.value.popular}</h2>
                <Waiting answer={popular} lines={BESIDE}>
                    {(items) => <Lines items={items} mark={there} />}
                </Waiting>
            </section>
            <section aria-labelledby="text-alone">
                <h2 id="text-alone">{words.value.textAlone}</h2>
                <Waiting answer={text} lines={BESIDE}>
                    {(items) => <Lines items={items} mark={there} />}
                </Waiting>
            </section>
        </>
    );
}

function WhyNot(): JSX.Element {
    const [item, setItem] = useState<Item>();
    return (
        <section class="why-not" aria-labelledby="why-not">
            <h2 id="why-not">{words.value.whyNot}</h2>
            <Pick label={words.value.findItem} find={findItems} id={({ id }) => id} show={(one) => <ItemLine item={one} />} onPick={setItem} />
            {item ? <HeldBack item={item} /> : <p class="quiet">{words.value.whyNotHelp}</p>}
        </section>
    );
}

function HeldBack({ item }: { item: Item }): JSX.Element {
    const answer = useAnswer((signal) => inspect(asked.value, item.id, signal), [asked.value, item.id]);
    return (
        <div class="held">
            <h3>
                <ItemTitle item={item} />
            </h3>
            <Waiting answer={answer} lines={6}>
                {({ placement }) => placement && <Facts placement={placement} />}
            </Waiting>
        </div>
    );
}

function verdict({ filtered_by, retrieved, rank, num_ranked }: Placement): string {
    const told = words.value;
    if (filtered_by.length) return `${told.filtered(filtered_by.map((name) => told.filters[name] ?? name).join("; "))} ${told.would(rank)}`;
    if (!retrieved) return `${told.notRetrieved} ${told.would(rank)}`;
    return rank === 1 ? told.first : told.lower(rank, num_ranked);
}

function Facts({ placement }: { placement: Placement }): JSX.Element {
    const { score, base_score, retrieval_rank, sources } = placement;
    const most = Math.max(...sources.map((one) => Math.abs(one.score)), 1e-9);
    const told = words.value;
    return (
        <>
            <p class="verdict">{verdict(placement)}</p>
            <table>
                <thead>
                    <tr>
                        <th scope="col">{told.source}</th>
                        <th scope="col">{told.place}</th>
                        <th scope="col">{told.adds}</th>
                    </tr>
                </thead>
                <tbody>
                    {sources.map((one) => (
                        <tr key={one.source}>
                            <th scope="row">{told.sources[one.source] ?? one.source}</th>
                            <td>{one.rank ?? (one.score > 0 ? told.beyond : told.none)}</td>
                            <td>
                                <span class="number">{one.score.toFixed(3)}</span>
                                <meter min={0} max={1} value={Math.max(one.score, 0) / most} aria-label={told.adds} />
                            </td>
                        </tr>
                    ))}
                </tbody>
            </table>
            <dl class="facts">
                <dt>{told.retrievalPlace}</dt>
                <dd>{retrieval_rank ?? told.beyond}</dd>
                <dt>{told.chance}</dt>
                <dd>{percent(score)}</dd>
                {base_score !== undefined && (
                    <>
                        <dt>{told.baseScore}</dt>
                        <dd>{percent(base_score)}</dd>
                        <dt>{told.textAdds}</dt>
                        <dd>{told.points(`${score >= base_score ? "+" : "−"}${Math.abs(100 * (score - base_score)).toFixed(2)}`)}</dd>
                    </>
                )}
            </dl>
        </>
    );
}

function Reads(): JSX.Element {
    const [open, setOpen] = useState(false);
    return (
        <section>
            <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
                <summary>
                    <h2>{words.value.reads}</h2>
                </summary>
                {open && <Segments />}
            </details>
        </section>
    );
}

function Segments(): JSX.Element {
    const answer = useAnswer((signal) => inspect(asked.value, "", signal), asked.value);
    return (
        <Waiting answer={answer} lines={6}>
            {({ segments }) => (
                <>
                    <p class="quiet">{segments.length ? words.value.readsHelp : words.value.readsNothing}</p>
                    {segments.length > 0 && <p>{words.value.cachedOf(segments.filter(({ cached }) => cached !== "absent").length, segments.length)}</p>}
                    {segments.length > 0 && (
                        <ol class="segments" tabIndex={0} aria-label={words.value.reads}>
                            {segments.map(({ slot, text, cached }, place) => (
                                <li key={place}>
                                    <span class="slot">{words.value.slots[slot] ?? slot}</span> <span class="said">{text}</span>{" "}
                                    <span class={`cached ${cached}`}>{words.value.cached[cached]}</span>
                                </li>
                            ))}
                        </ol>
                    )}
                </>
            )}
        </Waiting>
    );
}
