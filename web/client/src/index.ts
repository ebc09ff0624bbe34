// A client of `m6rec serve`: openapi-fetch with the types of the service's contract (schema.ts, generated).

import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

/** Requests and responses by name, such as `Schemas["RankedAnswer"]`. */
export type Schemas = components["schemas"];

/** A client of the service at `url`, with an API key where the service has keys. Use: `client.POST("/v1/rank", { body })`. */
export const connect = (url: string, key?: string): Client<paths> =>
    createClient<paths>({ baseUrl: url, headers: key ? { Authorization: `Bearer ${key}` } : {} });
