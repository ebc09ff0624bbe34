// What is served and what was measured of it.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { type Deployment, type MeasuredTable, reload, type Status } from "./api.ts";
import { bytes, count, moment, Table, Trouble } from "./parts.tsx";
import { words } from "./words.ts";

export function Served({ runs, status, changed }: { runs: Deployment["runs"]; status: Status | undefined; changed: () => void }): JSX.Element {
    const told = words.value.ofOperator;
    const [state, setState] = useState<{ error?: unknown; done?: boolean; busy?: boolean }>({});
    const load = async (): Promise<void> => {
        setState({ busy: true });
        try {
            await reload();
            setState({ done: true });
            changed();
        } catch (error) {
            setState({ error });
        }
    };
    return (
        <>
            {runs.length ? (
                <Table columns={[told.task, told.run, told.method, told.validation, told.finished]} label={{ "aria-labelledby": "served" }}>
                    {runs.map((one) => (
                        <tr key={one.run}>
                            <th scope="row">{one.task}</th>
                            <td>{one.run}</td>
                            <td>{one.method}</td>
                            <td>{one.validation_scores.length ? Math.max(...one.validation_scores).toFixed(4) : "–"}</td>
                            <td>{moment(one.finished)}</td>
                        </tr>
                    ))}
                </Table>
            ) : (
                <p class="quiet">{told.noRuns}</p>
            )}
            {status?.keys && status.role === "admin" ? (
                <button onClick={() => void load()} disabled={state.busy} title={told.reloadHelp}>
                    {told.reload}
                </button>
            ) : (
                <p class="quiet">{status?.keys ? told.needs(told.roles["admin"] ?? "", told.roles[status.role] ?? "") : told.reloadKeys}</p>
            )}
            <p role="status">{state.done ? told.reloaded : ""}</p>
            <Trouble error={state.error} />
        </>
    );
}

export function Measured({ evaluations }: { evaluations: Deployment["evaluations"] }): JSX.Element {
    const told = words.value.ofOperator;
    const [place, setPlace] = useState(0);
    const shown = evaluations[place] ?? evaluations[0];
    if (!shown) return <p class="quiet">{told.noReports}</p>;
    return (
        <>
            {evaluations.length > 1 && (
                <select aria-label={told.report} value={place} onChange={(event) => setPlace(Number(event.currentTarget.value))}>
                    {evaluations.map(({ title }, number) => (
                        <option key={number} value={number}>
                            {title}
                        </option>
                    ))}
                </select>
            )}
            <p class="quiet">
                {shown.title}, {moment(shown.measured)}
            </p>
            {shown.tables.map((table, number) => (
                <details key={`${place} ${number}`} open={!number}>
                    <summary>
                        <h3>{table.title}</h3>
                    </summary>
                    <MeasuredMethods table={table} />
                </details>
            ))}
        </>
    );
}

/** What was written of the project for reading: links to each, the served runs' first. */
export function Reports({ runs, reports }: Pick<Deployment, "runs" | "reports">): JSX.Element | null {
    const told = words.value.ofOperator;
    if (!runs.length && !reports.length) return null;
    return (
        <>
            <h3>{told.reports}</h3>
            <ul class="reports">
                {runs.length > 0 && (
                    <li>
                        <a href="page/report.html">{told.servedReport}</a>
                    </li>
                )}
                {reports.map(({ name, written, num_bytes }) => (
                    <li key={name}>
                        <a href={`page/report.html#${encodeURIComponent(name)}`}>{name}</a>{" "}
                        <span class="quiet">
                            {moment(written)}, {bytes(num_bytes)}
                        </span>
                    </li>
                ))}
            </ul>
        </>
    );
}

function MeasuredMethods({ table }: { table: MeasuredTable }): JSX.Element {
    const told = words.value.ofOperator;
    const names = [...new Set([table.metric, ...table.rows.flatMap(({ metrics }) => Object.keys(metrics))])];
    return (
        <>
            {table.verdict && <p>{table.verdict}</p>}
            <Table columns={[told.methodColumn, ...names]} label={{ "aria-label": table.title }}>
                {table.rows.map(({ method, metrics }) => (
                    <tr key={method} class={method === table.ours ? "ours" : ""}>
                        <th scope="row">{method}</th>
                        {names.map((name) => (
                            <td key={name}>{metrics[name] ? cell(metrics[name]) : ""}</td>
                        ))}
                    </tr>
                ))}
            </Table>
            {table.note && <p class="quiet">{table.note}</p>}
        </>
    );
}

/** A mean over seeds and how far they spread. */
const cell = ({ mean, deviation }: { mean: number; deviation?: number }): string => `${mean.toFixed(4)}${deviation === undefined ? "" : ` ± ${deviation.toFixed(4)}`}`;

export function DataCard({ data }: { data: NonNullable<Deployment["data"]> }): JSX.Element {
    const told = words.value.ofOperator;
    const pairs = (record: Record<string, string | number>): string =>
        Object.entries(record)
            .map(([name, value]) => `${name} = ${value}`)
            .join(", ");
    const facts: [string, string][] = [
        [told.events, told.counts(count(data.num_events), count(data.num_users), count(data.num_items))],
        [told.domain, data.domain],
        [told.split, data.split],
        [told.feedback, data.feedback],
        [told.timeRead, data.time],
        ...Object.entries(data.columns).map(([table, roles]): [string, string] => [told.columns(table), pairs(roles)]),
        [told.dropped, pairs(data.dropped)],
        [told.notes, data.notes.join("; ")],
    ];
    return (
        <dl class="facts">
            {facts.map(
                ([name, value]) =>
                    value && (
                        <>
                            <dt>{name}</dt>
                            <dd>{value}</dd>
                        </>
                    ),
            )}
        </dl>
    );
}
