// Where the keyboard goes on when what had the focus is gone, such as the button that undid the last of a list.

const FOCUSABLE = "a[href], button:enabled, input:enabled, select:enabled, textarea:enabled, summary, [tabindex='0']";

/** Gives a focus that was lost to what stands next in the document, as near around as there is something. */
export function keepFocus(root: Element): void {
    let around: Element[] = [];
    let earlier: Element[] = [];
    root.addEventListener("focusin", ({ target }) => {
        const focused = target as Element;
        around = [];
        // By pointer nobody misses it, and a field would open what is behind it.
        if (!focused.matches(":focus-visible")) return;
        for (let one: Element | null = focused; one && root.contains(one); one = one.parentElement) around.push(one);
        earlier = [...root.querySelectorAll(FOCUSABLE)].filter((one) => one.compareDocumentPosition(focused) & Node.DOCUMENT_POSITION_FOLLOWING);
    });
    new MutationObserver(() => {
        if (!around[0] || around[0].isConnected || document.activeElement !== document.body) return;
        const before = earlier.filter((one) => one.isConnected).at(-1);
        for (const part of around.filter((one) => one.isConnected)) {
            const here = [...part.querySelectorAll<HTMLElement>(FOCUSABLE)];
            const next = here.find((one) => !before || before.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
            const found = next ?? here.at(-1);
            if (found) return found.focus({ preventScroll: true });
        }
    }).observe(root, { childList: true, subtree: true });
}
