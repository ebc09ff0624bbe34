/** Text → token ids, as `m6rec.text.tokenizer` does it with the same `tokenizer.json`. */

import { Tokenizer as Library } from "@huggingface/tokenizers";

import { AssetError, message } from "./errors.js";

interface PreTokenizer {
    readonly type: string;
    readonly use_regex?: boolean;
    readonly pretokenizers?: readonly PreTokenizer[];
    readonly [option: string]: unknown;
}

interface Description {
    readonly added_tokens: readonly { readonly special: boolean }[];
    readonly pre_tokenizer: PreTokenizer | null;
    readonly model: {
        readonly type?: string;
        readonly vocab: Readonly<Record<string, number>>;
        readonly unk_token?: string | null;
        readonly byte_fallback?: boolean;
    };
}

/** The pattern of `ByteLevel`. The library has it, and that of `Digits`, in JavaScript's classes; given apart, it translates. */
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Reads every text as data: a control token spelled out in it becomes ordinary pieces. */
export class Tokenizer {
    private readonly library: Library;

    /** @throws AssetError It is no tokenizer that can be read here. */
    constructor(json: Uint8Array) {
        try {
            const raw = JSON.parse(new TextDecoder().decode(json)) as Description;
            const added_tokens = raw.added_tokens.filter((token) => !token.special);
            this.library = new Library({ ...raw, added_tokens, pre_tokenizer: preTokenizer(raw) }, {});
        } catch (error) {
            throw new AssetError(`tokenizer.json can't be read (${message(error)}); export the folder again`);
        }
    }

    /** Token ids, without any special token. */
    encode(text: string): number[] {
        return this.library.encode(text, { add_special_tokens: false }).ids;
    }
}

/** The same cutting of a text, in words that the library reads as Python's does. */
function preTokenizer({ pre_tokenizer, model }: Description): PreTokenizer | null {
    const lost = lostBytes(model);
    if (!pre_tokenizer) return pre_tokenizer;
    // Python leaves a byte without a token out before it joins its neighbours; the library would after.
    const dropped = { type: "Replace", pattern: { Regex: `[${lost.map(escaped).join("")}]` }, content: "" };
    return { type: "Sequence", pretokenizers: [translated(pre_tokenizer), ...(lost.length ? [dropped] : [])] };
}

function translated(one: PreTokenizer): PreTokenizer {
    if (one.pretokenizers) return { ...one, pretokenizers: one.pretokenizers.map(translated) };
    if (one.type === "Digits") return isolated(one.individual_digits ? "\\p{N}" : "\\p{N}+");
    if (one.type !== "ByteLevel" || one.use_regex === false || one.add_prefix_space) return one;
    return { type: "Sequence", pretokenizers: [isolated(WORDS), { ...one, use_regex: false }] };
}

function isolated(pattern: string): PreTokenizer {
    return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
}

/** Characters that stand for bytes and have no token, in a vocabulary with nothing in their place. */
function lostBytes(model: Description["model"]): string[] {
    if (model.type !== "BPE" || model.byte_fallback || model.unk_token) return [];
    const shown = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    let hidden = 256;
    const characters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(shown(byte) ? byte : hidden++));
    return characters.filter((character) => !Object.hasOwn(model.vocab, character));
}

function escaped(character: string): string {
    return `\\x{${character.codePointAt(0)!.toString(16)}}`;
}
