/**
 * Uses the app of `examples/embed.rs` as people do, in a real browser: logs in on the page, shares a session
 * among tabs, logs out, and opens pages of other origins that would do harm.
 *
 *     npm install
 *     APP_URL=http://localhost:3000 CHROMIUM=/usr/bin/chromium npm test
 *
 * Prints a line for each step and stops at the first that does not go as it should. `CHROMIUM` is `chromium` on
 * the path unless it is given.
 */

import { accessSync, constants } from "node:fs";
import { createServer } from "node:http";
import { delimiter, join } from "node:path";
import process from "node:process";
import { isDeepStrictEqual } from "node:util";

import { chromium } from "playwright-core";

const ANN = "ann@example.org";
const MALLORY = "mallory@example.org";
const PASSWORD = "correct horse battery staple";
const WRONG_PASSWORD = "wrong horse battery staple";
const LOGGED_IN = `Logged in as ${ANN}`;
const LOGGED_OUT = "You are not logged in.";
const ROUNDS = 5;
/** For what comes in a moment, but on a slow machine. */
const PATIENCE_MS = 20_000;
/** For everything: fetches of pages have no limit of their own. */
const DEADLINE_MS = 600_000;
const JSON_TYPE = "application/json";
const FORM_TYPE = "application/x-www-form-urlencoded";
const TEXT_TYPE = "text/plain";

const APP = appOrigin();

/** Where the app runs. The steps below take 127.0.0.1 for another site, and plain http for as good as https. */
function appOrigin() {
  const text = process.env.APP_URL ?? "";
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol !== "http:" || url.hostname !== "localhost") {
    console.error(`tabs.mjs: APP_URL must be like http://localhost:3000, and is "${text}"`);
    process.exit(1);
  }
  return url.origin;
}

function chromiumPath() {
  const name = process.env.CHROMIUM || "chromium";
  const folders = name.includes("/") ? [""] : (process.env.PATH ?? "").split(delimiter);
  for (const folder of folders) {
    const path = folder ? join(folder, name) : name;
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next one may have it.
    }
  }
  throw new Error(`there is no program ${name}; set CHROMIUM to the path of Chromium`);
}

/** Runs one step; what goes wrong in it is reported under its name. */
async function step(name, work) {
  try {
    await work();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`, { cause: error });
  }
  console.log(name);
}

function expect(what, expected, got) {
  if (!isDeepStrictEqual(expected, got)) {
    throw new Error(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
}

function bounded(work, limit, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${limit / 1000} seconds`)), limit);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** Waits until the page shows this text. */
async function shows(page, text) {
  try {
    await page.getByText(text, { exact: true }).waitFor();
  } catch {
    const found = (await page.locator("body").innerText()).slice(0, 300);
    throw new Error(`expected "${text}" at ${page.url()}, but it says: ${found}`);
  }
}

/** Waits until the keyboard writes into this element. */
async function hasFocus(page, element, what) {
  try {
    await element.and(page.locator(":focus")).waitFor();
  } catch {
    const focused = page.locator(":focus");
    const found = (await focused.count()) ? await focused.evaluate((found) => found.outerHTML) : "nothing";
    throw new Error(`expected the focus on ${what}, but it is on ${found}`);
  }
}

// By the names that people hear and see, so that a field without a label is not found.
const nameField = (page) => page.getByRole("textbox", { name: "E-mail address or user name", exact: true });
const passwordField = (page) => page.getByLabel("Password", { exact: true });
const loginButton = (page) => page.getByRole("button", { name: "Log in", exact: true });

async function submitLogin(page, password) {
  await nameField(page).fill(ANN);
  await passwordField(page).fill(password);
  await loginButton(page).click();
}

async function logIn(page) {
  await page.goto(`${APP}/login?redirect=/`);
  await submitLogin(page, PASSWORD);
  await page.waitForURL(`${APP}/`);
  await shows(page, LOGGED_IN);
}

async function isRefusedOnce(page) {
  await submitLogin(page, WRONG_PASSWORD);
  const alert = page.getByRole("alert");
  await alert.waitFor();
  expect("the alert", "The name or the password is wrong.", await alert.innerText());
  expect("the address of the page", `${APP}/login`, page.url());
  expect("the name, which stays", ANN, await nameField(page).inputValue());
  expect("the password, which does not", "", await passwordField(page).inputValue());
}

/** All cookies but that by which the device is known again, which opens nothing and stays. */
async function cookiesOf(context) {
  const isDevice = ({ name, value }) => name === "doorward_device" && value.startsWith("dwd_");
  const cookies = await context.cookies();
  for (const cookie of cookies.filter(isDevice)) {
    expect("the device cookie, kept from scripts", true, cookie.httpOnly);
  }
  return cookies.filter((cookie) => !isDevice(cookie));
}

/** The one cookie there is besides. */
async function sessionCookie(context) {
  const [cookie, ...others] = await cookiesOf(context);
  expect("the cookie's name", "doorward", cookie?.name);
  expect("other cookies", [], others.map(({ name }) => name));
  return cookie;
}

async function hasNoCookie(context) {
  const cookies = await cookiesOf(context);
  expect("cookies", [], cookies.map(({ name }) => name));
}

/** Somebody's browser, as it comes out of the box. */
async function openContext(browser, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}

/** Sends a request as a script of this page. */
function send(page, method, path, { body, token, credentials = "same-origin" } = {}) {
  const work = page.evaluate(
    async ({ method, path, body, token, credentials }) => {
      const headers = {};
      if (body !== undefined) headers["Content-Type"] = "application/json";
      if (token !== undefined) headers.Authorization = `Bearer ${token}`;
      const answer = await fetch(path, { method, headers, credentials, body: JSON.stringify(body) });
      const text = await answer.text();
      return { status: answer.status, body: text ? JSON.parse(text) : null };
    },
    { method, path, body, token, credentials },
  );
  return bounded(work, PATIENCE_MS, `${method} ${path}`);
}

async function sendFor(status, page, method, path, options) {
  const answer = await send(page, method, path, options);
  expect(`${method} ${path}, ${JSON.stringify(answer.body?.code ?? null)}`, status, answer.status);
  return answer.body;
}

/** Everything that pages of this context complain about. */
function complaintsOf(context) {
  const complaints = [];
  // What the browser writes down by itself: the 401 of whoever is not logged in, and the app has no icon.
  const expected = [
    ["/v1/auth/me", 401],
    ["/login", 401],
    ["/favicon.ico", 404],
  ];
  context.on("console", (message) => {
    const { url } = message.location();
    const isExpected = expected.some(([path, status]) => {
      const start = `Failed to load resource: the server responded with a status of ${status} (`;
      return url === `${APP}${path}` && message.text().startsWith(start);
    });
    if (["error", "warning"].includes(message.type()) && !isExpected) complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(error.error().message));
  return complaints;
}

async function loginPageIsAccessible(page) {
  const fields = await page.locator("input:not([type=hidden])").evaluateAll((inputs) =>
    inputs.map(({ name, labels }) => [name, [...labels].map((label) => label.textContent)]),
  );
  const labelled = [
    ["username", ["E-mail address or user name"]],
    ["password", ["Password"]],
  ];
  expect("the fields and their labels", labelled, fields);
  await page.getByRole("main").waitFor();
  await page.getByRole("heading", { level: 1, name: "Log in", exact: true }).waitFor();
  expect("the language", "en", await page.locator("html").getAttribute("lang"));
  expect("the title", "Log in", await page.title());
  expect("alerts, before anything is wrong", 0, await page.getByRole("alert").count());
  await hasFocus(page, nameField(page), "the name");
  await page.keyboard.press("Tab");
  await hasFocus(page, passwordField(page), "the password, after the name");
  await page.keyboard.press("Tab");
  await hasFocus(page, loginButton(page), "the button, after the password");
  await page.keyboard.press("Shift+Tab");
  await hasFocus(page, passwordField(page), "the password, back from the button");
}

/** Puts a script into the page; the policy must stop it, and the complaint shows that complaints are heard. */
async function strangeScriptsDoNotRun(browser) {
  const context = await openContext(browser);
  const complaints = complaintsOf(context);
  const page = await context.newPage();
  await page.goto(`${APP}/login`);
  await hasFocus(page, nameField(page), "the name");
  expect("complaints of the page as it is", [], complaints);
  const complained = context.waitForEvent("console", (message) => message.text().includes("Content Security Policy"));
  const put = page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.hasRun = true";
    document.body.append(script);
    return window.hasRun === true;
  });
  const [hasRun] = await Promise.all([put, complained]);
  expect("whether a script that was put in runs", false, hasRun);
  expect("complaints about it", 1, complaints.length);
  await context.close();
}

/** No script of a page can get at the session. */
async function pagesHoldNoTokens(page, cookie) {
  const { cookies, ...places } = await page.evaluate(() => ({
    cookies: document.cookie,
    localStorage: JSON.stringify({ ...localStorage }),
    sessionStorage: JSON.stringify({ ...sessionStorage }),
    document: document.documentElement.outerHTML,
  }));
  expect("cookies that scripts see", "", cookies);
  for (const [place, text] of Object.entries(places)) {
    for (const secret of ["eyJ", "dwr_", "dwd_", cookie.value]) {
      if (text.includes(secret)) throw new Error(`there is a token in ${place} of ${page.url()}`);
    }
  }
}

async function loginWorksWithoutScripts(browser) {
  const context = await openContext(browser, { javaScriptEnabled: false });
  const complaints = complaintsOf(context);
  const page = await context.newPage();
  await page.goto(`${APP}/login?redirect=/`);
  await hasFocus(page, nameField(page), "the name");
  await isRefusedOnce(page);
  await submitLogin(page, PASSWORD);
  await page.waitForURL(`${APP}/`);
  // The app's own page needs scripts to say who it is for.
  const answer = await page.goto(`${APP}/v1/auth/me`);
  expect("GET /v1/auth/me", 200, answer.status());
  expect("who is logged in", ANN, (await answer.json()).email);
  expect("complaints", [], complaints);
  await context.close();
}

/** Refreshes in all pages at one time, which a message to all of them begins. */
async function refreshAtOnce(pages, token) {
  const listens = (token) => {
    const channel = new BroadcastChannel("refresh");
    const refresh = async () => {
      const answer = await fetch("/v1/auth/refresh", {
        method: "POST",
        credentials: "omit",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ refresh_token: token }),
      });
      return { status: answer.status, body: await answer.json() };
    };
    window.refreshed = new Promise((resolve, reject) => {
      channel.onmessage = () => {
        channel.close();
        refresh().then(resolve, reject);
      };
    });
    // Taken up below; until then nobody is to complain of it.
    window.refreshed.catch(() => {});
  };
  await Promise.all(pages.map((page) => page.evaluate(listens, token)));
  await pages[0].evaluate(() => {
    const channel = new BroadcastChannel("refresh");
    channel.postMessage("now");
    channel.close();
  });
  const answers = Promise.all(pages.map((page) => page.evaluate(() => window.refreshed)));
  return bounded(answers, PATIENCE_MS, "refreshing");
}

async function refreshTogether(pages) {
  const omit = { credentials: "omit" };
  const login = await sendFor(200, pages[0], "POST", "/v1/auth/login", {
    ...omit,
    body: { email: ANN, password: PASSWORD },
  });
  let { refresh_token: token, access_token: access } = login;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const answers = await refreshAtOnce(pages, token);
    const statuses = answers.map(({ status, body }) => (status === 200 ? 200 : `${status} ${body.code}`));
    expect(`round ${round}`, pages.map(() => 200), statuses);
    const successors = [...new Set(answers.map(({ body }) => body.refresh_token))];
    expect(`round ${round}: successors`, 1, successors.length);
    expect(`round ${round}: whether the successor is the token before`, false, successors[0] === token);
    for (const [index, page] of pages.entries()) {
      access = answers[index].body.access_token;
      const me = await sendFor(200, page, "GET", "/v1/auth/me", { ...omit, token: access });
      expect(`round ${round}: who is logged in`, ANN, me.email);
    }
    [token] = successors;
  }
  await sendFor(204, pages[0], "POST", "/v1/auth/logout", { ...omit, token: access });
}

/** Serves an empty page, below two names: of the app's site, and of another. */
async function serveStrangers() {
  const server = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html; charset=utf-8");
    answer.end("<!doctype html><html lang=en><title>Stranger</title><link rel=icon href=data:,>");
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address();
  const strangers = [
    // The browser sends the cookie along: only the server's own check is left.
    { name: "another origin of this site", url: `http://localhost:${port}/`, site: "same-site", sendsCookie: true },
    { name: "another site", url: `http://127.0.0.1:${port}/`, site: "cross-site", sendsCookie: false },
  ];
  return { server, strangers };
}

/** What goes over the wire. A page of another origin is not told, and neither is who drives it. */
class Wire {
  #exchanges = new Map();
  #listener = null;

  static async of(page) {
    const wire = new Wire();
    const client = await page.context().newCDPSession(page);
    client.on("Network.requestWillBeSent", ({ requestId, request, redirectResponse }) => {
      // A request that follows a redirect has the id of the one before, of which this is the last word.
      if (redirectResponse) wire.#tell(requestId, { status: redirectResponse.status });
      wire.#learn(requestId, { method: request.method, url: request.url });
    });
    client.on("Network.requestWillBeSentExtraInfo", ({ requestId, headers }) =>
      wire.#learn(requestId, { site: headers["Sec-Fetch-Site"], sendsCookie: "Cookie" in headers }),
    );
    client.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) =>
      wire.#learn(requestId, { status: statusCode }),
    );
    await client.send("Network.enable");
    return wire;
  }

  /** These come in any order. */
  #learn(id, facts) {
    const exchange = { ...this.#exchanges.get(id), ...facts };
    this.#exchanges.set(id, exchange);
    if (["url", "site", "status"].every((fact) => fact in exchange)) this.#tell(id);
  }

  #tell(id, facts) {
    const exchange = { ...this.#exchanges.get(id), ...facts };
    this.#exchanges.delete(id);
    this.#listener?.(exchange);
  }

  /** Does something that sends this request; answers what it gives and how the request went. */
  async during(method, path, act) {
    const sent = new Promise((resolve) => {
      this.#listener = (exchange) => {
        if (exchange.method === method && exchange.url === `${APP}${path}`) resolve(exchange);
      };
    });
    const what = `${method} ${path} of another origin`;
    return Promise.all([bounded(act(), PATIENCE_MS, what), bounded(sent, PATIENCE_MS, what)]);
  }
}

/** What strangers send to change something; `status` is what a request that needs no permission is answered. */
function attacks(stranger, sessionId) {
  const guarded = stranger.sendsCookie ? 403 : 401;
  const login = { email: MALLORY, password: PASSWORD, transport: "cookie" };
  return [
    { method: "POST", path: "/v1/auth/logout", status: guarded },
    { method: "POST", path: "/v1/auth/logout?scope=all", status: guarded },
    // With the right password, so that nothing but the origin is in the way.
    {
      method: "POST",
      path: "/v1/auth/me/password",
      body: { current_password: PASSWORD, new_password: "a password of somebody else" },
      status: guarded,
    },
    { method: "POST", path: "/v1/auth/me/deactivate", body: { password: PASSWORD }, status: guarded },
    { method: "POST", path: "/v1/auth/reauthenticate", body: { password: PASSWORD }, status: guarded },
    { method: "PATCH", path: "/v1/auth/me", body: { username: "somebody_else" } },
    { method: "DELETE", path: `/v1/auth/sessions/${sessionId}` },
    { method: "POST", path: "/notes", body: "A note of somebody else", status: guarded },
    { method: "POST", path: "/v1/auth/login", body: login, status: 415, formStatus: 400 },
  ];
}

/** The ways to send one: some as pages always could, some for which the browser asks the server first. */
function waysToSend({ method, status, formStatus = status }) {
  const asksFirst = { mode: "cors", type: JSON_TYPE, sends: "OPTIONS", status: 405 };
  if (method !== "POST") return [asksFirst];
  return [
    { mode: "no-cors", type: TEXT_TYPE, sends: method, status },
    { mode: "no-cors", type: FORM_TYPE, sends: method, status: formStatus },
    // A browser gives no content type to a blob without one.
    { mode: "no-cors", type: null, sends: method, status },
    { mode: "cors", type: TEXT_TYPE, sends: method, status },
    asksFirst,
  ];
}

/** Fetches from a stranger's page; answers what the page can read. */
function fetchFrom(page, { method, path, body, mode, type }) {
  return page.evaluate(
    async ({ url, method, text, mode, type }) => {
      const headers = type === null ? {} : { "Content-Type": type };
      const body = method === "GET" ? undefined : type === null ? new Blob([text]) : text;
      try {
        const answer = await fetch(url, { method, mode, headers, body, credentials: "include" });
        return `${answer.status || ""}${await answer.text()}`;
      } catch {
        return "";
      }
    },
    { url: `${APP}${path}`, method, text: JSON.stringify(body ?? {}), mode, type },
  );
}

function expectExchange(what, stranger, status, exchange) {
  const { site, sendsCookie } = stranger;
  const got = { site: exchange.site, sendsCookie: exchange.sendsCookie, status: exchange.status };
  expect(what, { site, sendsCookie, status }, got);
}

async function fetchEverything(page, wire, stranger, sessionId) {
  for (const attack of attacks(stranger, sessionId)) {
    for (const way of waysToSend(attack)) {
      const what = `${attack.method} ${attack.path}, ${way.mode}, ${way.type}`;
      const send = () => fetchFrom(page, { ...attack, ...way });
      const [read, exchange] = await wire.during(way.sends, attack.path, send);
      expect(`${what}: what it reads`, "", read);
      // Questions go without cookies, wherever they come from.
      const asker = way.sends === "OPTIONS" ? { ...stranger, sendsCookie: false } : stranger;
      expectExchange(what, asker, way.status, exchange);
    }
  }
  const [, exchange] = await wire.during("POST", "/v1/auth/logout", () =>
    page.evaluate((url) => navigator.sendBeacon(url), `${APP}/v1/auth/logout`),
  );
  expectExchange("a beacon to /v1/auth/logout", stranger, stranger.sendsCookie ? 403 : 401, exchange);
}

async function readNothing(page, wire, stranger) {
  const status = stranger.sendsCookie ? 200 : 401;
  for (const [path, expected] of [
    ["/v1/auth/me", status],
    ["/v1/auth/sessions", status],
    ["/notes", status],
    ["/login", 200],
  ]) {
    for (const mode of ["cors", "no-cors"]) {
      const send = () => fetchFrom(page, { method: "GET", path, mode, type: null });
      const [read, exchange] = await wire.during("GET", path, send);
      expect(`GET ${path}, ${mode}: what it reads`, "", read);
      expectExchange(`GET ${path}, ${mode}`, stranger, expected, exchange);
    }
  }
  for (const path of ["/v1/auth/me", "/login"]) {
    for (const tag of ["img", "script", "iframe"]) {
      await isNotEmbedded(page, wire, stranger, tag, path, path === "/login" ? 200 : status);
    }
  }
}

/** The server answers, and the browser shows nothing of it. */
async function isNotEmbedded(page, wire, stranger, tag, path, status) {
  const what = `<${tag}> of ${path}`;
  const url = `${APP}${path}`;
  // A frame says that it has loaded whatever it shows. Only its request tells that it was refused.
  const isFrame = tag === "iframe";
  const blocked = isFrame ? "net::ERR_BLOCKED_BY_RESPONSE" : "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin";
  const isBlocked = (request) => request.url() === url && request.failure()?.errorText === blocked;
  const refused = page.waitForEvent("requestfailed", isBlocked).catch(() => {
    throw new Error(`${what}: the browser does not block it`);
  });
  const embed = async () => {
    const embedded = page.evaluate(
      ({ tag, url }) =>
        new Promise((resolve) => {
          const element = document.createElement(tag);
          element.onload = () => resolve({ event: "load", document: element.contentDocument ?? null });
          element.onerror = () => resolve({ event: "error", document: null });
          element.src = url;
          document.body.append(element);
        }),
      { tag, url },
    );
    const [got] = await Promise.all([embedded, refused]);
    return got;
  };
  const [got, exchange] = await wire.during("GET", path, embed);
  expect(what, { event: isFrame ? "load" : "error", document: null }, got);
  expectExchange(what, stranger, status, exchange);
}

/** Forms as pages could always send them: nobody asks the server whether they may. */
function forms(stranger, sessionIsOpen) {
  const guarded = stranger.sendsCookie && sessionIsOpen ? 403 : 401;
  const fields = { username: MALLORY, password: PASSWORD, redirect: "/" };
  // Sent as text, a field whose name and value are the halves of a JSON text makes that text.
  const login = { email: MALLORY, password: PASSWORD, transport: "cookie", device_name: "=" };
  return [
    { path: "/login", type: FORM_TYPE, fields, status: 403 },
    { path: "/login", type: TEXT_TYPE, fields, status: 403 },
    // This is the one that is answered: with tokens that nobody can read, and no cookie.
    { path: "/v1/auth/login", type: FORM_TYPE, fields, status: 200 },
    { path: "/v1/auth/login", type: TEXT_TYPE, fields: halves(login), status: 415 },
    { path: "/v1/auth/logout", type: FORM_TYPE, fields: {}, status: guarded },
    { path: "/v1/auth/logout", type: TEXT_TYPE, fields: {}, status: guarded },
    { path: "/notes", type: FORM_TYPE, fields: { text: "A note of somebody else" }, status: guarded },
    { path: "/notes", type: TEXT_TYPE, fields: halves("A note of somebody else ="), status: guarded },
  ];
}

function halves(value) {
  const [name, rest] = JSON.stringify(value).split("=");
  return { [name]: rest };
}

/** Has a stranger's page submit a form, into a frame that nobody sees or in its own place. */
function submitFrom(page, { path, type, fields }, isHidden) {
  return page.evaluate(
    ({ url, type, fields, isHidden }) => {
      const form = document.createElement("form");
      Object.assign(form, { method: "post", action: url, enctype: type });
      for (const [name, value] of Object.entries(fields)) {
        const input = document.createElement("input");
        Object.assign(input, { type: "hidden", name, value });
        form.append(input);
      }
      if (isHidden) {
        const frame = document.createElement("iframe");
        Object.assign(frame, { name: `frame${document.forms.length}`, hidden: true });
        document.body.append(frame);
        form.target = frame.name;
      }
      document.body.append(form);
      // Once this has returned, since the page goes away.
      setTimeout(() => form.submit());
    },
    { url: `${APP}${path}`, type, fields, isHidden },
  );
}

async function submitEverything(page, wire, stranger, sessionIsOpen) {
  for (const form of forms(stranger, sessionIsOpen)) {
    for (const isHidden of [true, false]) {
      await page.goto(stranger.url);
      // To the end: a browser that is told to close a page which is just coming may forget to.
      const leaves = isHidden ? null : page.waitForURL(({ origin }) => origin === APP);
      const send = () => Promise.all([submitFrom(page, form, isHidden), leaves]);
      const [, exchange] = await wire.during("POST", form.path, send);
      const what = `a form to ${form.path}, ${form.type}, ${isHidden ? "in a frame" : "in its own place"}`;
      const sendsCookie = stranger.sendsCookie && sessionIsOpen;
      expectExchange(what, { ...stranger, sendsCookie }, form.status, exchange);
    }
  }
}

/** What a stranger might change. */
async function belongings(page) {
  await page.reload();
  await shows(page, LOGGED_IN);
  const me = await sendFor(200, page, "GET", "/v1/auth/me");
  const notes = await sendFor(200, page, "GET", "/notes");
  const { items: sessions } = await sendFor(200, page, "GET", "/v1/auth/sessions");
  const opened = sessions.map(({ id, current, authenticated_at: at }) => ({ id, current, at }));
  return { me, notes, sessions: opened };
}

async function strangersDoNoHarm(context, stranger) {
  const own = await context.newPage();
  await logIn(own);
  await sendFor(200, own, "POST", "/notes", { body: "A note to keep" });
  const before = await belongings(own);
  const cookie = await sessionCookie(context);
  const isUnharmed = async (after) => {
    expect(`after ${after}`, before, await belongings(own));
    // Not shown: it is a secret.
    const isSame = isDeepStrictEqual(cookie, await sessionCookie(context));
    expect(`after ${after}: whether the cookie is the same`, true, isSame);
  };
  const page = await context.newPage();
  const wire = await Wire.of(page);
  await page.goto(stranger.url);

  const { id } = before.sessions.find(({ current }) => current);
  await fetchEverything(page, wire, stranger, id);
  await isUnharmed("fetching");
  await readNothing(page, wire, stranger);
  await isUnharmed("reading");
  await submitEverything(page, wire, stranger, true);
  await isUnharmed("submitting forms");
  await page.close();

  // The password is the same, and what strangers could not do the own page can.
  const body = { email: ANN, password: PASSWORD };
  await sendFor(200, own, "POST", "/v1/auth/login", { credentials: "omit", body });
  await sendFor(204, own, "POST", "/v1/auth/logout?scope=all");
  await own.reload();
  await shows(own, LOGGED_OUT);
  await own.close();
}

/** Nobody is put into somebody else's account. */
async function strangersLogNobodyIn(context, stranger) {
  const page = await context.newPage();
  const wire = await Wire.of(page);
  await page.goto(stranger.url);
  const logins = attacks(stranger, "").filter(({ path }) => path === "/v1/auth/login");
  expect("logins to try", 1, logins.length);
  const nobody = { ...stranger, sendsCookie: false };
  for (const attack of logins) {
    for (const way of waysToSend(attack)) {
      const send = () => fetchFrom(page, { ...attack, ...way });
      const [read, exchange] = await wire.during(way.sends, attack.path, send);
      expect(`${attack.path}, ${way.mode}, ${way.type}: what it reads`, "", read);
      expectExchange(`${attack.path}, ${way.mode}, ${way.type}`, nobody, way.status, exchange);
    }
  }
  await submitEverything(page, wire, stranger, false);
  await page.close();
  await hasNoCookie(context);
  const own = await context.newPage();
  await own.goto(`${APP}/`);
  await shows(own, LOGGED_OUT);
  await own.close();
}

/** The account that strangers would like others to use. */
async function registerMallory(page) {
  const body = { email: MALLORY, password: PASSWORD };
  const { status } = await send(page, "POST", "/v1/auth/register", { credentials: "omit", body });
  // An earlier run may have left it.
  if (status !== 201 && status !== 409) throw new Error(`POST /v1/auth/register: expected 201 or 409, got ${status}`);
  // It is there to be logged in to, so that refusals are for the origin alone.
  const { access_token: token } = await sendFor(200, page, "POST", "/v1/auth/login", { credentials: "omit", body });
  await sendFor(204, page, "POST", "/v1/auth/logout?scope=all", { credentials: "omit", token });
}

async function walk(browser, strangers) {
  const context = await openContext(browser);
  const complaints = complaintsOf(context);
  const first = await context.newPage();

  await step("the app's link leads to the login page", async () => {
    await first.goto(`${APP}/`);
    await shows(first, LOGGED_OUT);
    await first.getByRole("link", { name: "Log in", exact: true }).click();
    await first.waitForURL(`${APP}/login?redirect=/`);
  });
  await step("the login page is labelled, and can be used by keyboard", () => loginPageIsAccessible(first));
  await step("a wrong password is refused on the page", async () => {
    await isRefusedOnce(first);
    await hasFocus(first, passwordField(first), "the password, after a refusal");
    await hasNoCookie(context);
  });
  await step("the right password leads back to the app", async () => {
    await passwordField(first).fill(PASSWORD);
    await first.keyboard.press("Enter");
    await first.waitForURL(`${APP}/`);
    await shows(first, LOGGED_IN);
    expect("complaints of the browser", [], complaints);
  });
  await step("no script can read the session", async () => {
    const cookie = await sessionCookie(context);
    const { httpOnly, sameSite, path, domain } = cookie;
    const narrow = { httpOnly: true, sameSite: "Lax", path: "/", domain: "localhost" };
    expect("the cookie", narrow, { httpOnly, sameSite, path, domain });
    await pagesHoldNoTokens(first, cookie);
    const page = await context.newPage();
    await page.goto(`${APP}/login`);
    await pagesHoldNoTokens(page, cookie);
    await page.close();
    expect("complaints of the browser", [], complaints);
  });
  await step("the login page runs no script that was put into it", () => strangeScriptsDoNotRun(browser));
  await step("the login page works without scripts", () => loginWorksWithoutScripts(browser));

  const pages = [first, await context.newPage(), await context.newPage()];
  await step("three tabs share one session", async () => {
    for (const page of pages) {
      await page.goto(`${APP}/`);
      await shows(page, LOGGED_IN);
    }
    const note = `A note of ${new Date().toISOString()}`;
    await pages[1].getByRole("textbox", { name: "Note", exact: true }).fill(note);
    await pages[1].getByRole("button", { name: "Add", exact: true }).click();
    await shows(pages[1], note);
    for (const page of pages) {
      await page.reload();
      await shows(page, note);
    }
  });
  await step(`three tabs that refresh at once stay logged in, ${ROUNDS} times`, () => refreshTogether(pages));
  await step("logging out in one tab ends the session in all", async () => {
    await pages[2].getByRole("button", { name: "Log out", exact: true }).click();
    await shows(pages[2], LOGGED_OUT);
    await hasNoCookie(context);
    for (const page of pages) {
      await page.reload();
      await shows(page, LOGGED_OUT);
    }
    expect("complaints of the browser", [], complaints);
  });

  await step("there is another account, for strangers to offer", () => registerMallory(first));
  await context.close();
  for (const stranger of strangers) {
    await step(`${stranger.name} does no harm to who is logged in`, async () => {
      const context = await openContext(browser);
      await strangersDoNoHarm(context, stranger);
      await context.close();
    });
    await step(`${stranger.name} logs nobody in`, async () => {
      const context = await openContext(browser);
      await strangersLogNobodyIn(context, stranger);
      await context.close();
    });
  }
}

async function main() {
  const { server, strangers } = await serveStrangers();
  try {
    const browser = await chromium.launch({
      executablePath: chromiumPath(),
      // Chromium's sandbox does not work for root, nor in most containers.
      args: ["--headless=new", "--no-sandbox"],
    });
    try {
      await bounded(walk(browser, strangers), DEADLINE_MS, "all of it");
    } finally {
      await browser.close();
    }
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

main().catch((error) => {
  console.error(`tabs.mjs: ${error.message}`);
  process.exitCode = 1;
});
