/** Words for names of the service, each of which every language has; it may send others, such as those of a package. */
export const names = <Name extends string>(words: Record<Name, string>): Record<Name, string> & Readonly<Record<string, string | undefined>> => words;
