// What the reader chose: language and theme are kept in this browser, the key in this tab alone.

import { effect, signal } from "@preact/signals";

export type Language = "en" | "zh";
export type Theme = "auto" | "light" | "dark";

const LANGUAGE = "m6rec-language";
const THEME = "m6rec-theme";
const KEY = "m6rec-key";

const preferred: Language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
export const language = signal<Language>((localStorage.getItem(LANGUAGE) as Language | null) ?? preferred);
export const theme = signal<Theme>((localStorage.getItem(THEME) as Theme | null) ?? "auto");
export const key = signal(sessionStorage.getItem(KEY) ?? "");
/** Whether the service wants a key, or another one. */
export const refused = signal(false);

effect(() => {
    localStorage.setItem(LANGUAGE, language.value);
    document.documentElement.lang = language.value === "zh" ? "zh-Hans" : "en";
});
effect(() => {
    localStorage.setItem(THEME, theme.value);
    document.documentElement.dataset["theme"] = theme.value;
});
effect(() => {
    if (key.value) sessionStorage.setItem(KEY, key.value);
    else sessionStorage.removeItem(KEY);
});
