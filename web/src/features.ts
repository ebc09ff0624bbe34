/** Written by `python -m m6rec.features.typescript`. */

export const NUM_FEATURES = 20;
export const NUM_EVENT_FEATURES = 7;
export const USER_PRIOR = 5;
export const ITEM_PRIOR = 5;
export const CATEGORY_PRIOR = 3;
export const NEAR_PRIOR = 3;
export const NEAR_SPREADS = 0.35;
export const RECENT_MEMORY = 0.85;
export const LATEST = 128;
