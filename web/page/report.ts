// Shows a report of the project, which its own address can't where the service has keys: a link sends none. The report
// runs nothing: it is in a sandbox.

import { getReport, Problem } from "./api.ts";
import { createPolicy } from "./trusted.ts";
import { words } from "./words.ts";

const policy = createPolicy({ createHTML: (text: string) => text });

const place = document.getElementById("report") as HTMLElement;

async function show(): Promise<void> {
    const name = decodeURIComponent(location.hash.slice(1));
    const title = name || words.value.ofOperator.servedReport;
    document.title = `${title} – m6rec`;
    const heading = document.createElement("h1");
    heading.className = "unseen";
    heading.textContent = title;
    const waiting = document.createElement("p");
    waiting.setAttribute("role", "status");
    waiting.textContent = words.value.loading;
    place.replaceChildren(heading, waiting);
    try {
        const html = await getReport(name);
        const frame = document.createElement("iframe");
        frame.setAttribute("sandbox", "");
        frame.title = title;
        frame.srcdoc = policy?.createHTML(html) ?? html;
        place.replaceChildren(heading, frame);
    } catch (error) {
        waiting.setAttribute("role", "alert");
        waiting.textContent = error instanceof Problem && error.message ? error.message : words.value.unreachable;
    }
}

addEventListener("hashchange", () => void show());
void show();
