// For those who run the service: how it does, what it serves, and its data.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Deployment, getDeployment, getStatus, type Status } from "./api.ts";
import { Erase, Export, Import } from "./data.tsx";
import { DataCard, Measured, Reports, Served } from "./deployment.tsx";
import { ago, bytes, count, duration, moment, percent, Table, useAnswer, Waiting } from "./parts.tsx";
import { words } from "./words.ts";

const LOOK_MS = 3000;
const LOOKS = 60;
/** Looks between two at what is on disk. */
const RARELY = 10;

export function OperatorView(): JSX.Element {
    const [looks, setLooks] = useState(0);
    const [changes, setChanges] = useState(0);
    const status = useAnswer(getStatus, [looks, changes]);
    const deployment = useAnswer(getDeployment, [Math.floor(looks / RARELY), changes]);
    useEffect(() => {
        if (status.busy) return; // the next look is at its time from the last answer on
        const timer = setInterval(() => document.hidden || setLooks((before) => before + 1), LOOK_MS);
        return () => clearInterval(timer);
    }, [status.busy]);
    const changed = (): void => setChanges((before) => before + 1);
    const told = words.value.ofOperator;
    return (
        <main class="operator">
            <h1 class="unseen">{words.value.operator}</h1>
            <div class="column">
                <Part id="service" title={told.service}>
                    <Waiting answer={status} lines={8}>
                        {(now) => <Service status={now} />}
                    </Waiting>
                </Part>
                <Part id="going-on" title={told.goingOn}>
                    <GoingOn status={status.value} deployment={deployment.value} />
                </Part>
                <Part id="data-card" title={told.data}>
                    <Waiting answer={deployment} lines={5}>
                        {({ data }) => (data ? <DataCard data={data} /> : <p class="quiet">{told.noData}</p>)}
                    </Waiting>
                </Part>
            </div>
            <div class="column">
                <Part id="traffic" title={told.traffic} help={told.trafficHelp}>
                    <Waiting answer={status} lines={6}>
                        {(now) => <Traffic status={now} />}
                    </Waiting>
                </Part>
                <Part id="faults" title={told.faults} help={told.faultsHelp}>
                    <Waiting answer={status} lines={3}>
                        {(now) => <Faults status={now} />}
                    </Waiting>
                </Part>
                <Part id="served" title={told.served}>
                    <Waiting answer={deployment} lines={3}>
                        {({ runs }) => <Served runs={runs} status={status.value} changed={changed} />}
                    </Waiting>
                </Part>
                <Part id="measured" title={told.measured}>
                    <Waiting answer={deployment} lines={6}>
                        {({ evaluations, runs, reports }) => (
                            <>
                                <Measured evaluations={evaluations} />
                                <Reports runs={runs} reports={reports} />
                            </>
                        )}
                    </Waiting>
                </Part>
            </div>
            <div class="column">
                <Part id="import" title={told.bring} help={told.bringHelp}>
                    <Allowed status={status.value} role="write">
                        <Import changed={changed} />
                    </Allowed>
                </Part>
                <Part id="export" title={told.take} help={told.takeHelp}>
                    <Allowed status={status.value} role="admin">
                        <Export />
                    </Allowed>
                </Part>
                <Part id="erase" title={told.erase} help={told.eraseHelp}>
                    <Allowed status={status.value} role="admin">
                        <Erase changed={changed} />
                    </Allowed>
                </Part>
            </div>
        </main>
    );
}

function Part({ id, title, help, children }: { id: string; title: string; help?: string; children: ComponentChildren }): JSX.Element {
    return (
        <section aria-labelledby={id}>
            <h2 id={id}>{title}</h2>
            {help && <p class="quiet">{help}</p>}
            {children}
        </section>
    );
}

const ROLES = ["read", "write", "admin"];

/** The children, where the reader's key allows them; the service would refuse them otherwise. */
function Allowed({ status, role, children }: { status: Status | undefined; role: "write" | "admin"; children: ComponentChildren }): JSX.Element {
    const told = words.value.ofOperator;
    if (status && ROLES.indexOf(status.role) < ROLES.indexOf(role))
        return <p class="quiet">{told.needs(told.roles[role] ?? role, told.roles[status.role] ?? status.role)}</p>;
    return <>{children}</>;
}

interface Look {
    at: number;
    requests: number;
    per_s: number;
}

/** Requests a second at the latest looks. */
function useRate(status: Status): number[] {
    const looks = useRef<Look[]>([]);
    const requests = status.traffic.reduce((sum, one) => sum + one.requests, 0);
    const last = looks.current.at(-1);
    if (last?.at !== status.now) {
        const per_s = last ? Math.max(0, requests - last.requests) / (status.now - last.at) : 0;
        looks.current = [...looks.current, { at: status.now, requests, per_s }].slice(-LOOKS);
    }
    return looks.current.slice(1).map(({ per_s }) => per_s);
}

function Service({ status }: { status: Status }): JSX.Element {
    const told = words.value.ofOperator;
    const { cache, data, now } = status;
    const rate = useRate(status);
    const asked = cache ? cache.hits + cache.misses : 0;
    return (
        <>
            <Spark values={rate} label={told.perSecond} />
            <dl class="facts">
                <dt>{told.running}</dt>
                <dd>{count(status.running)}</dd>
                {status.queues.map(({ queue, waiting, limit }) => (
                    <>
                        <dt>{told.queues[queue] ?? queue}</dt>
                        <dd>
                            {count(waiting)} / {count(limit)}
                            <meter min={0} max={limit} value={waiting} aria-label={told.queues[queue] ?? queue} />
                        </dd>
                    </>
                ))}
                <dt>{told.cache}</dt>
                <dd>
                    {cache ? `${told.hits(asked ? percent(cache.hits / asked) : "–", count(cache.entries))}, ${bytes(cache.bytes)}` : told.noCache}
                    {cache && cache.store_failures > 0 && <p class="bad">{told.storeFailures(count(cache.store_failures))}</p>}
                </dd>
                <dt>{told.items}</dt>
                <dd>{told.indexed(count(data.num_items), count(data.num_indexed))}</dd>
                <dt>{told.indexChanged}</dt>
                <dd>{ago(data.index_changed, now)}</dd>
                <dt>{told.users}</dt>
                <dd>{count(data.num_users)}</dd>
                <dt>{told.events}</dt>
                <dd>{count(data.num_events)}</dd>
                <dt>{told.newEvents}</dt>
                <dd title={told.newEventsHelp}>{count(data.num_new_events)}</dd>
                <dt>{told.lastEvent}</dt>
                <dd>{data.events_changed === undefined ? told.noneYet : ago(data.events_changed, now)}</dd>
                <dt>{told.started}</dt>
                <dd>{moment(status.started)}</dd>
                <dt>{told.version}</dt>
                <dd>{status.version}</dd>
                <dt>{told.yourRole}</dt>
                <dd>{told.roles[status.role] ?? status.role}</dd>
            </dl>
            {!status.keys && <p class="quiet">{told.noKeys}</p>}
        </>
    );
}

/** How a number went, and what it is now. */
function Spark({ values, label }: { values: number[]; label: string }): JSX.Element {
    const most = Math.max(...values, 1e-9);
    const points = values.map((value, place) => `${place},${(1 - value / most) * 30}`).join(" ");
    return (
        <figure class="spark">
            <figcaption>
                {label} <span class="number">{(values.at(-1) ?? 0).toFixed(1)}</span>
            </figcaption>
            <svg viewBox={`0 -1 ${Math.max(values.length - 1, 1)} 32`} preserveAspectRatio="none" role="img" aria-label={words.value.ofOperator.overTime(values.length)}>
                {values.length > 1 && <polyline points={points} vector-effect="non-scaling-stroke" />}
            </svg>
        </figure>
    );
}

function Traffic({ status }: { status: Status }): JSX.Element {
    const told = words.value.ofOperator;
    if (!status.traffic.length) return <p class="quiet">{told.noTraffic}</p>;
    return (
        <Table columns={[told.route, told.requests, told.refused, told.failed, "p50", "p99"]} label={{ "aria-labelledby": "traffic" }}>
            {status.traffic.map((one) => (
                <tr key={one.route}>
                    <th scope="row">
                        <code>{one.route}</code>
                    </th>
                    <td>{count(one.requests)}</td>
                    <td>{count(one.refused)}</td>
                    <td class={one.failed ? "bad" : ""}>{count(one.failed)}</td>
                    <td>{words.value.took(one.p50_ms.toFixed(1))}</td>
                    <td>{words.value.took(one.p99_ms.toFixed(1))}</td>
                </tr>
            ))}
        </Table>
    );
}

function Faults({ status }: { status: Status }): JSX.Element {
    const told = words.value.ofOperator;
    if (!status.faults.length) return <p class="quiet">{told.noFaults}</p>;
    return (
        <Table columns={[told.when, told.status, told.type, told.route, told.requestId]} label={{ "aria-labelledby": "faults" }} tall>
            {status.faults.map((one) => (
                <tr key={`${one.time} ${one.request_id}`}>
                    <td>{moment(one.time)}</td>
                    <td class={one.status >= 500 || one.type === "internal" ? "bad" : ""}>{one.status}</td>
                    <td>{one.type}</td>
                    <td>
                        <code>
                            {one.method} {one.route}
                        </code>
                    </td>
                    <td>
                        <code>{one.request_id}</code>
                    </td>
                </tr>
            ))}
        </Table>
    );
}

function GoingOn({ status, deployment }: { status: Status | undefined; deployment: Deployment | undefined }): JSX.Element {
    const told = words.value.ofOperator;
    const own = (status?.tasks ?? []).map((one) => ({ ...one, name: told.tasks[one.name] ?? one.name, note: "" }));
    const tunings = (deployment?.tunings ?? []).map(({ run, step, num_steps, saved, eta_s }) => ({
        name: told.tuning(run),
        done: step,
        total: num_steps,
        note: told.checkpoint(ago(saved, status?.now ?? saved)),
        ...(eta_s === undefined ? {} : { eta_s }),
    }));
    const all = [...own, ...tunings];
    if (!all.length) return <p class="quiet">{told.nothingGoesOn}</p>;
    return (
        <ul class="tasks">
            {all.map(({ name, done, total, eta_s, note }) => (
                <li key={name}>
                    <span>{name}</span>
                    <progress max={total} value={done} aria-label={name} />
                    <span class="quiet">{[`${count(done)} / ${count(total)}`, eta_s === undefined ? "" : told.left(duration(eta_s)), note].filter(Boolean).join(" · ")}</span>
                </li>
            ))}
        </ul>
    );
}

