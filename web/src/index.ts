/** The recommender of `m6rec export` in a browser. */

export { Device, type Options } from "./device.js";
export { AssetError, DataError, M6recError, StoreError, UnknownError } from "./errors.js";
export { FORMAT, type Manifest, type Progress } from "./folder.js";
export type { Event, Item, Ranked, RankingInputs } from "./types.js";
