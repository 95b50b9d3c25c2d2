/**
 * Logs in, asks who that is, refreshes and logs out:
 *
 *     export DOORWARD_URL=http://127.0.0.1:8080 DOORWARD_EMAIL=ann@example.org DOORWARD_PASSWORD=…
 *     npm install && npm run walk
 *
 * Prints a line for each step and stops at the first that is not answered as it should be.
 */

import { Doorward } from "./doorward.js";

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

function expect(step: string, expected: unknown, got: unknown): void {
  if (got !== expected) throw new Error(`${step}: expected ${String(expected)}, got ${String(got)}`);
}

async function walk(): Promise<void> {
  const url = setting("DOORWARD_URL").replace(/\/+$/, "");
  const doorward = new Doorward(url);

  await doorward.login(setting("DOORWARD_EMAIL"), setting("DOORWARD_PASSWORD"), "walk.ts");
  const first = doorward.accessToken;
  console.log("logged in");

  const me = await doorward.me();
  console.log(`am ${me.email}`);

  await doorward.refresh();
  const second = doorward.accessToken;
  if (!second || second === first) throw new Error("refresh: there is no new access token");
  expect("who am I, with the new access token", me.id, (await doorward.me()).id);
  console.log("refreshed, and the new access token is good");

  await doorward.logout();
  console.log("logged out");

  // The client has forgotten the tokens; whoever kept a copy is refused although neither has expired.
  for (const token of [first, second]) {
    const response = await fetch(`${url}/v1/auth/me`, { headers: { Authorization: `Bearer ${token}` } });
    expect("who am I, logged out", 401, response.status);
    const { code } = (await response.json()) as { code: string };
    expect("who am I, logged out", "logged_out", code);
  }
  console.log("refused: 401 logged_out");
}

walk().catch((error: unknown) => {
  console.error(`walk.ts: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
