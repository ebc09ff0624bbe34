// The page that `m6rec serve` has at /: views of a person, of an item, and of the service itself.

import { signal } from "@preact/signals";
import { type JSX, render } from "preact";
import { useId, useState } from "preact/hooks";
import { ChatView } from "./chat.tsx";
import { forget } from "./device.ts";
import { keepFocus } from "./focus.ts";
import { ItemView } from "./item.tsx";
import { OperatorView } from "./operator.tsx";
import { PersonView } from "./person.tsx";
import { key, type Language, language, refused, type Theme, theme } from "./settings.ts";
import { words } from "./words.ts";

const VIEWS = ["person", "item", "chat", "operator"] as const;

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

function decoded(part: string): string {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

function Page(): JSX.Element {
    const [, wanted = "", id = ""] = hash.value.split("/");
    const view = VIEWS.find((name) => name === wanted) ?? "person";
    return (
        <>
            <header class="top">
                <a class="name" href="#/person">
                    m6rec
                </a>
                <nav aria-label={words.value.views}>
                    {VIEWS.map((name) => (
                        <a key={name} href={`#/${name}`} aria-current={view === name ? "page" : undefined}>
                            {words.value[name]}
                        </a>
                    ))}
                </nav>
                <Choices />
            </header>
            {refused.value ? <SignIn /> : <View name={view} id={decoded(id)} />}
        </>
    );
}

function View({ name, id }: { name: (typeof VIEWS)[number]; id: string }): JSX.Element {
    switch (name) {
        case "person":
            return <PersonView />;
        case "item":
            return <ItemView id={id} />;
        case "chat":
            return <ChatView />;
        case "operator":
            return <OperatorView />;
    }
}

function Choices(): JSX.Element {
    return (
        <div class="choices">
            {key.value && !refused.value && (
                <button
                    class="plain"
                    onClick={() => {
                        key.value = "";
                        refused.value = true;
                        void forget();
                    }}
                >
                    {words.value.signOut}
                </button>
            )}
            <select aria-label={words.value.theme} value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
                {(["auto", "light", "dark"] as const).map((name) => (
                    <option key={name} value={name}>
                        {words.value.themes[name]}
                    </option>
                ))}
            </select>
            <select aria-label={words.value.language} value={language.value} onChange={(event) => (language.value = event.currentTarget.value as Language)}>
                <option value="en" lang="en">
                    English
                </option>
                <option value="zh" lang="zh-Hans">
                    中文
                </option>
            </select>
        </div>
    );
}

function SignIn(): JSX.Element {
    const name = useId();
    const [typed, setTyped] = useState("");
    return (
        <main class="sign-in">
            <form
                onSubmit={(event) => {
                    event.preventDefault();
                    key.value = typed.trim();
                    refused.value = false;
                }}
            >
                <h1>{words.value.signIn}</h1>
                <p>{words.value.keyNeeded}</p>
                {key.value && <p role="alert">{words.value.keyWrong}</p>}
                <label for={name}>{words.value.key}</label>
                <input id={name} type="password" autocomplete="off" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
                <button class="main" disabled={!typed.trim()}>
                    {words.value.signIn}
                </button>
            </form>
        </main>
    );
}

const app = document.getElementById("app");
if (app) {
    keepFocus(app);
    render(<Page />, app);
}
