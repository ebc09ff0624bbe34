// A CSV file (RFC 4180) as rows of cells; the separator is the one that the header has most of.

const SEPARATORS = [",", ";", "\t", "|"];

export function separatorOf(text: string): string {
    const [header = ""] = text.split(/\r?\n/, 1);
    const counts = SEPARATORS.map((one) => header.split(one).length);
    return SEPARATORS[counts.indexOf(Math.max(...counts))] ?? ",";
}

/** The rows, one after another; lines without any cell are left out. */
export function* rowsOf(text: string, separator: string): Generator<string[]> {
    let row: string[] = [];
    let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
    while (at < text.length) {
        let cell = "";
        if (text[at] === '"') {
            let from = ++at;
            for (;;) {
                const quote = text.indexOf('"', at);
                if (quote < 0) {
                    cell += text.slice(from);
                    at = text.length;
                    break;
                }
                if (text[quote + 1] !== '"') {
                    cell += text.slice(from, quote);
                    at = quote + 1;
                    break;
                }
                cell += text.slice(from, quote + 1);
                from = at = quote + 2;
            }
        }
        const from = at;
        while (at < text.length && text[at] !== separator && text[at] !== "\n") at++;
        const rest = text.slice(from, at);
        row.push(cell + (rest.endsWith("\r") && text[at] !== separator ? rest.slice(0, -1) : rest));
        if (text[at] === separator && at + 1 < text.length) {
            at++;
            continue;
        }
        if (text[at] === separator) row.push("");
        at++;
        if (row.length > 1 || row[0]) yield row;
        row = [];
    }
}
