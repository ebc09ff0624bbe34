// The page's policy takes no text for a script or for markup but what is made here (require-trusted-types-for).

interface Factory {
    createPolicy<Rules>(name: string, rules: Rules): Rules;
}

/** The page's own policy with these rules; undefined where the browser has no trusted types, and takes text. */
export const createPolicy = <Rules>(rules: Rules): Rules | undefined =>
    (globalThis as { trustedTypes?: Factory }).trustedTypes?.createPolicy("m6rec", rules);
