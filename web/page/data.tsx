// The service's data as a whole: bring a table in, take everything out, erase a user.

import type { JSX } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { erase, type Exported, exported, findUsers } from "./api.ts";
import { bring, chosen, type CsvTable, guess, type Imported, type Kind, kindOf, type Meaning, MEANINGS, MOST_BYTES, MOST_REFUSED, NEEDED, tableOf } from "./importing.ts";
import { bytes, count, duration, Pick, Table, Trouble } from "./parts.tsx";
import { words } from "./words.ts";

const SHOWN = 3;

export function Import({ changed }: { changed: () => void }): JSX.Element {
    const told = words.value.ofOperator;
    const name = useId();
    const [table, setTable] = useState<CsvTable>();
    const [trouble, setTrouble] = useState("");
    const [over, setOver] = useState(false);
    const take = async (file: File | undefined): Promise<void> => {
        if (!file) return;
        setTable(undefined);
        setTrouble(file.size > MOST_BYTES ? told.tooLarge : "");
        if (file.size > MOST_BYTES) return;
        const read = await tableOf(file);
        if (read.rows.length) setTable(read);
        else setTrouble(told.noRows);
    };
    return (
        <>
            <div
                class={`drop ${over ? "over" : ""}`}
                onDragOver={(event) => {
                    event.preventDefault();
                    setOver(true);
                }}
                onDragLeave={() => setOver(false)}
                onDrop={(event) => {
                    event.preventDefault();
                    setOver(false);
                    void take(event.dataTransfer?.files[0]);
                }}
            >
                <label for={name}>{told.dropHere}</label>
                <input
                    id={name}
                    type="file"
                    accept=".csv,.tsv,.txt,text/csv"
                    onChange={(event) => {
                        void take(event.currentTarget.files?.[0]);
                        event.currentTarget.value = ""; // the same file may be chosen again
                    }}
                />
            </div>
            {trouble && <p role="alert">{trouble}</p>}
            {table && <Mapping table={table} changed={changed} key={table.name} />}
        </>
    );
}

function Mapping({ table, changed }: { table: CsvTable; changed: () => void }): JSX.Element {
    const told = words.value.ofOperator;
    const kindName = useId();
    const [kind, setKind] = useState<Kind>(kindOf(table));
    const [meanings, setMeanings] = useState<Meaning[]>(guess(kind, table.header));
    const [state, setState] = useState<{ imported?: Imported; error?: unknown; busy?: boolean; stopped?: boolean }>({});
    const leaving = useRef<AbortController>(undefined);
    const missing = NEEDED[kind].filter((one) => !meanings.includes(one));
    const start = async (): Promise<void> => {
        const controller = (leaving.current = new AbortController());
        setState({ busy: true });
        try {
            for await (const imported of bring(table, kind, meanings, told.noNumber, controller.signal)) setState({ imported, busy: true });
            setState(({ imported }) => ({ ...(imported ? { imported } : {}) }));
        } catch (error) {
            setState(({ imported }) => ({ ...(imported ? { imported } : {}), ...(controller.signal.aborted ? { stopped: true } : { error }) }));
        }
        changed();
    };
    return (
        <form
            onSubmit={(event) => {
                event.preventDefault();
                void start();
            }}
        >
            <h3>{table.name}</h3>
            <p class="quiet">{told.rows(count(table.rows.length))}</p>
            <div class="field">
                <label for={kindName}>{told.kind}</label>
                <select
                    id={kindName}
                    value={kind}
                    onChange={(event) => {
                        const now = event.currentTarget.value as Kind;
                        setKind(now);
                        setMeanings(guess(now, table.header));
                    }}
                >
                    {(["events", "items"] as const).map((one) => (
                        <option key={one} value={one}>
                            {told.kinds[one]}
                        </option>
                    ))}
                </select>
            </div>
            <Table columns={[told.column, told.meaning, told.example]} label={{ "aria-label": table.name }}>
                {table.header.map((column, place) => (
                    <tr key={place}>
                        <th scope="row">{column}</th>
                        <td>
                            <select
                                aria-label={`${told.meaning}: ${column}`}
                                value={meanings[place] ?? ""}
                                onChange={(event) => setMeanings(chosen(meanings, place, event.currentTarget.value as Meaning))}
                            >
                                {MEANINGS[kind].map((one) => (
                                    <option key={one} value={one}>
                                        {told.meanings[one]}
                                    </option>
                                ))}
                            </select>
                        </td>
                        <td class="quiet">
                            {table.rows
                                .slice(0, SHOWN)
                                .map((cells) => (cells[place] ?? "").slice(0, 40))
                                .join(" · ")}
                        </td>
                    </tr>
                ))}
            </Table>
            {missing.length > 0 && <p role="status">{told.missing(missing.map((one) => told.meanings[one]).join(", "))}</p>}
            <div class="row">
                <button class="main" disabled={missing.length > 0 || state.busy}>
                    {told.start}
                </button>
                {state.busy && (
                    <button type="button" onClick={() => leaving.current?.abort()}>
                        {told.stop}
                    </button>
                )}
            </div>
            {state.imported && <Progress imported={state.imported} all={table.rows.length} busy={Boolean(state.busy)} />}
            {state.stopped && <p role="status">{told.stopped}</p>}
            <Trouble error={state.error} />
        </form>
    );
}

function Progress({ imported, all, busy }: { imported: Imported; all: number; busy: boolean }): JSX.Element {
    const told = words.value.ofOperator;
    const { done, written, repeated, unknown, refused, eta_s } = imported;
    return (
        <>
            <progress max={all} value={done} aria-label={told.bring} />
            <p class="quiet">
                {told.importing(count(done), count(all))}
                {busy && eta_s !== undefined ? ` · ${told.left(duration(eta_s))}` : ""}
            </p>
            <p role="status">{busy ? "" : told.imported(count(written), count(repeated))}</p>
            {unknown.length > 0 && <p>{told.unknownItems(`${unknown.slice(0, 10).join(", ")}${unknown.length > 10 ? ", …" : ""}`)}</p>}
            {refused.length > 0 && (
                <>
                    <h4>{told.refusedRows}</h4>
                    <ul class="refused">
                        {refused.map(([row, message]) => (
                            <li key={row}>{told.row(row, message)}</li>
                        ))}
                    </ul>
                    {refused.length > MOST_REFUSED && <p role="alert">{told.tooManyRefused}</p>}
                </>
            )}
        </>
    );
}

export function Export(): JSX.Element {
    const told = words.value.ofOperator;
    const [state, setState] = useState<{ error?: unknown; done?: string; busy?: boolean }>({});
    const take = async (kind: Exported): Promise<void> => {
        setState({ busy: true });
        try {
            const blob = await exported(kind);
            const link = document.createElement("a");
            link.href = URL.createObjectURL(blob);
            link.download = `${kind}.jsonl`;
            link.click();
            setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
            setState({ done: told.taken(link.download, bytes(blob.size)) });
        } catch (error) {
            setState({ error });
        }
    };
    return (
        <>
            <div class="row">
                {(["events", "items", "users"] as const).map((kind) => (
                    <button key={kind} disabled={state.busy} onClick={() => void take(kind)}>
                        {told.takeKinds[kind]}
                    </button>
                ))}
            </div>
            <p role="status">{state.done ?? ""}</p>
            <Trouble error={state.error} />
        </>
    );
}

export function Erase({ changed }: { changed: () => void }): JSX.Element {
    const told = words.value.ofOperator;
    const name = useId();
    const [user, setUser] = useState("");
    const [typed, setTyped] = useState("");
    const [state, setState] = useState<{ error?: unknown; done?: string; busy?: boolean }>({});
    const now = async (): Promise<void> => {
        setState({ busy: true });
        try {
            const { erased, request } = await erase(user);
            setState({ done: erased ? told.erased(user, request) : told.nothingErased(user) });
            setUser("");
            setTyped("");
            changed();
        } catch (error) {
            setState({ error });
        }
    };
    return (
        <>
            <Pick label={told.erasePick} find={findUsers} id={String} show={(id) => id} onPick={setUser} />
            {user && (
                <form
                    onSubmit={(event) => {
                        event.preventDefault();
                        void now();
                    }}
                >
                    <label for={name}>{told.eraseConfirm(user)}</label>
                    <input id={name} autocomplete="off" spellcheck={false} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
                    <button class="danger" disabled={typed !== user || state.busy}>
                        {told.eraseNow}
                    </button>
                </form>
            )}
            <p role="status">{state.done ?? ""}</p>
            <Trouble error={state.error} />
        </>
    );
}
