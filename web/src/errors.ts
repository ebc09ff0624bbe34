/** What a page can act on; the message says what was given, what is allowed and what to do. */
export class M6recError extends Error {
    override name = "M6recError";
}

/** A device folder or a bundle is absent, damaged, of another format, or can't be run here. */
export class AssetError extends M6recError {
    override name = "AssetError";
}

/** What a page gave can't be used. */
export class DataError extends M6recError {
    override name = "DataError";
}

/** The page's own database fails. */
export class StoreError extends M6recError {
    override name = "StoreError";
}

/** An item isn't known on this device. */
export class UnknownError extends M6recError {
    override name = "UnknownError";
}

/** The message of whatever was thrown. */
export function message(error: unknown): string {
    return error instanceof Error ? error.message : String(error);
}
