/**
 * Walks through an account's life with nothing but the client that was made from the OpenAPI document:
 *
 *     DOORWARD_URL=http://127.0.0.1:8080 node walk.js
 *
 * Prints a line for each step and stops at the first that is not answered as it should be.
 */

import {
  getMe,
  type GetMeErrors,
  listMySessions,
  login,
  logout,
  type OAuthError,
  oauthToken,
  type Problem,
  type ProblemField,
  refresh,
  register,
  type RegisterErrors,
  updateMe,
} from "./client";
import { client } from "./client/client.gen";

// All that is needed of Node; its types would be one more package.
declare const process: { env: Record<string, string | undefined>; exitCode?: number };

/** A type that the document says something about: where it says nothing, using the value must not compile. */
type Known<T> = unknown extends T ? never : T;

interface Answer<Data, Refusal> {
  data: Data | undefined;
  error: Refusal | undefined;
  response?: Response;
}

/** What is expected must be possible by the type that the document gives to what was got. */
function same<T extends string | number | null | undefined>(step: string, expected: NoInfer<T>, got: T): void {
  if (got !== expected) throw new Error(`${step}: expected ${String(expected)}, got ${String(got)}`);
}

/** What was asked for, answered with the expected status. */
function done<Data>(step: string, status: number, answer: Answer<Data, Problem | OAuthError>): Known<Data> {
  const { data, error, response } = answer;
  if (response?.status !== status || data === undefined) {
    throw new Error(`${step}: expected ${status}, got ${response?.status ?? "no answer"} ${error?.code ?? ""}`);
  }
  return data as Known<Data>;
}

/** The error that an answer of the expected status holds. */
function refused<Refusal>(step: string, status: number, answer: Answer<unknown, Refusal>): Known<Refusal> {
  same(step, status, answer.response?.status);
  if (answer.error === undefined) throw new Error(`${step}: the answer holds no error`);
  return answer.error as Known<Refusal>;
}

/** Of the ways to be known that the document lists, this client has a token; the cookie is for browsers. */
function bearer(token: string) {
  return (way: { scheme?: string }) => (way.scheme === "bearer" ? token : undefined);
}

function refreshByOAuth(token: string) {
  return oauthToken({ body: { grant_type: "refresh_token", refresh_token: token } });
}

async function walk(): Promise<void> {
  const baseUrl = process.env["DOORWARD_URL"]?.replace(/\/+$/, "");
  if (!baseUrl) throw new Error("DOORWARD_URL is not set");
  client.setConfig({ baseUrl });

  const name = `walk-${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  const email = `${name}@example.org`;
  const password = "correct horse battery staple";

  const bad = { email: "nobody", password: "x" };
  const invalid: RegisterErrors[422] = refused("register badly", 422, await register({ body: bad }));
  same("register badly", "invalid_input", invalid.code);
  const broken: ProblemField[] = invalid.errors ?? [];
  const fields: string[] = broken.map(({ field }) => field).sort();
  same("register badly", "email,password", fields.join());
  console.log(`not registered: 422 ${invalid.code}, ${fields.join(" and ")}`);

  const attributes = { plan: "free" };
  const user = done("register", 201, await register({ body: { email, password, attributes } }));
  // Where registering conceals which addresses have accounts, it answers `accepted` instead.
  if (!("id" in user)) throw new Error("register: the answer holds no user");
  same("register", email, user.email);
  same("register", "active", user.status);
  console.log(`registered ${user.email}`);

  const opened = done("log in", 200, await login({ body: { email, password, device_name: "walk.ts" } }));
  const { access_token: first, refresh_token: firstRefresh, session } = opened;
  if (!first || !firstRefresh) throw new Error("log in: the answer holds no tokens");
  console.log(`logged in for ${opened.expires_in ?? 0} s`);

  const me = done("who am I", 200, await getMe({ auth: bearer(first) }));
  same("who am I", user.id, me.id);
  console.log(`am ${me.email}`);

  const pair = done("refresh", 200, await refresh({ body: { refresh_token: firstRefresh } }));
  const second = pair.access_token;
  if (second === first) throw new Error("refresh: the answer holds the old access token");
  client.setConfig({ auth: bearer(second) });
  same("who am I, with the new access token", user.id, done("who am I", 200, await getMe()).id);
  console.log("refreshed, and the new access token is good");

  const { items } = done("list my sessions", 200, await listMySessions());
  const current = items.find((listed) => listed.current);
  same("list my sessions", session.id, current?.id);
  same("list my sessions", "walk.ts", current?.device_name);
  console.log(`listed my sessions: ${items.length}`);

  const change = { username: name, attributes: { plan: "pro" } };
  const changed = done("change me", 200, await updateMe({ body: change }));
  same("change me", name, changed.username);
  same("change me", '{"plan":"pro"}', JSON.stringify(changed.attributes));
  const taken = done("change me back", 200, await updateMe({ body: { username: null } }));
  same("change me back", null, taken.username);
  same("change me back", '{"plan":"pro"}', JSON.stringify(taken.attributes));
  console.log("changed my attributes, took a user name and gave it back");

  const third = done("refresh by OAuth", 200, await refreshByOAuth(pair.refresh_token));
  client.setConfig({ auth: bearer(third.access_token) });
  same("who am I, with the token of OAuth", user.id, done("who am I", 200, await getMe()).id);
  console.log(`refreshed by OAuth: a ${third.token_type} token`);

  same("log out", 204, (await logout({ query: { scope: "this" } })).response?.status);
  console.log("logged out");

  // None of them has expired.
  for (const token of [first, second, third.access_token]) {
    const dead: GetMeErrors[401] = refused("who am I, logged out", 401, await getMe({ auth: bearer(token) }));
    same("who am I, logged out", "logged_out", dead.code);
  }
  console.log("refused: 401 logged_out");

  const grant = refused("refresh by OAuth, logged out", 400, await refreshByOAuth(third.refresh_token));
  if (!("error" in grant)) throw new Error(`refresh by OAuth, logged out: got the problem ${grant.code}`);
  same("refresh by OAuth, logged out", "invalid_grant", grant.error);
  same("refresh by OAuth, logged out", "logged_out", grant.code);
  console.log(`refused by OAuth: 400 ${grant.error}`);
}

walk().catch((error: unknown) => {
  console.error(`walk.ts: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
