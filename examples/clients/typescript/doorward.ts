/**
 * A client of Doorward for Node 18 and for browsers, without dependencies:
 *
 *     const doorward = new Doorward("http://127.0.0.1:8080");
 *     await doorward.login("ann@example.org", password);
 *     const notes = await doorward.fetch("https://notes.example.org/notes");
 *
 * It holds the tokens in memory only, refreshes an access token that has expired, and throws `SessionEnded`
 * when somebody has to log in again. Try it with `npm install && npm run walk`.
 */

/** How often a request is repeated that was answered 503, and a refresh whose answer was lost. */
const REPEATS = 3;
/** The longest `Retry-After` that is waited for, in seconds. */
const LONGEST_PAUSE = 30;
/** When an answer to a login or a refresh counts as lost, in milliseconds. */
const TIMEOUT = 10_000;

/** A refusal; `code` is Doorward's stable name for it. */
export class DoorwardError extends Error {
  override readonly name: string = "DoorwardError";

  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
  ) {
    super(`${status} ${code}: ${detail}`);
  }
}

/** A 401 that no refresh can heal, such as `session_replaced`, `logged_out` or `refresh_reused`: log in again. */
export class SessionEnded extends DoorwardError {
  override readonly name = "SessionEnded";
}

export interface User {
  id: string;
  email: string;
  email_verified: boolean;
  username: string | null;
  attributes: Record<string, unknown>;
  roles: string[];
  status: "active" | "deactivated";
  created_at: string;
  updated_at: string;
}

/** A request as `fetch` takes it, with a body that can be sent twice. */
export interface ApiRequest extends Omit<RequestInit, "body"> {
  body?: string | URLSearchParams | FormData | Blob;
}

interface Tokens {
  access_token: string;
  refresh_token: string;
}

/** Calls that began under an earlier login keep that one's session and never touch a later one. */
interface Session {
  tokens: Tokens;
  refreshing: Promise<void> | undefined;
}

export class Doorward {
  readonly #url: string;
  #session: Session | undefined;

  constructor(url: string) {
    this.#url = url.replace(/\/+$/, "");
  }

  /** The access token of this moment, for what cannot go through `fetch`. */
  get accessToken(): string | undefined {
    return this.#session?.tokens.access_token;
  }

  async login(email: string, password: string, deviceName?: string): Promise<void> {
    const tokens = await this.#ask("/v1/auth/login", { email, password, device_name: deviceName });
    this.#session = { tokens, refreshing: undefined };
  }

  async me(): Promise<User> {
    const response = await this.fetch("/v1/auth/me");
    if (!response.ok) throw await refusalOf(response);
    return (await response.json()) as User;
  }

  /**
   * Sends a request with the access token, to a path of Doorward or to the address of an API that asks Doorward
   * and passes its `code` on. Whoever answers there can use the token, so the address must be one that you trust.
   *
   * A 503 with `Retry-After` is repeated where that can do no harm: when something is only read, or at Doorward.
   */
  async fetch(target: string, request: ApiRequest = {}): Promise<Response> {
    const session = this.#current();
    const used = session.tokens.access_token;
    const response = await this.#send(target, request, used);
    if (response.status !== 401) return response;
    const refusal = await refusalOf(response);
    if (refusal.code !== "token_expired") throw sessionEnded(refusal);

    // Another call may have refreshed while this one was under way.
    if (session.tokens.access_token === used) await this.#refreshOnce(session);
    const again = await this.#send(target, request, session.tokens.access_token);
    if (again.status !== 401) return again;
    const final = await refusalOf(again);
    throw final.code === "token_expired" ? final : sessionEnded(final);
  }

  /** Trades the tokens for fresh ones now; `fetch` does so by itself when it has to. */
  async refresh(): Promise<void> {
    await this.#refreshOnce(this.#current());
  }

  /** Ends the session. An expired access token is good enough for that. */
  async logout(): Promise<void> {
    const session = this.#current();
    const response = await this.#send("/v1/auth/logout", { method: "POST" }, session.tokens.access_token);
    // 401 says that there is no session any more, which is what was wanted.
    if (!response.ok && response.status !== 401) throw await refusalOf(response);
    if (this.#session === session) this.#session = undefined;
  }

  #current(): Session {
    if (!this.#session) throw new SessionEnded(401, "unauthenticated", "Nobody is logged in.");
    return this.#session;
  }

  /**
   * One refresh at a time: a refresh token is good for one use, and a second one sent after its successor was
   * used looks like a thief's.
   */
  #refreshOnce(session: Session): Promise<void> {
    session.refreshing ??= this.#rotate(session).finally(() => {
      session.refreshing = undefined;
    });
    return session.refreshing;
  }

  /** Doorward answers the same refresh token with the same successor until it has seen that one arrive. */
  async #rotate(session: Session): Promise<void> {
    const { refresh_token } = session.tokens;
    for (let repeats = 0; ; repeats++) {
      try {
        session.tokens = await this.#ask("/v1/auth/refresh", { refresh_token });
        return;
      } catch (error) {
        if (error instanceof DoorwardError && error.status === 401) throw sessionEnded(error);
        // The session is not given up: the next call that needs it begins with the same token once more.
        if (!isLost(error) || repeats === REPEATS) throw error;
        await sleep(0.5 * 2 ** repeats);
      }
    }
  }

  async #ask(path: string, body: object): Promise<Tokens> {
    const headers = { "Content-Type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await this.#send(path, request, undefined, TIMEOUT);
    if (!response.ok) throw await refusalOf(response);
    return (await response.json()) as Tokens;
  }

  async #send(target: string, request: ApiRequest, token?: string, timeout?: number): Promise<Response> {
    const url = target.startsWith("/") ? this.#url + target : target;
    const headers = new Headers(request.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const onlyReads = ["GET", "HEAD"].includes((request.method ?? "GET").toUpperCase());
    const mayRepeat = onlyReads || target.startsWith("/v1/auth/");
    for (let repeats = 0; ; repeats++) {
      const signal = timeout ? AbortSignal.timeout(timeout) : (request.signal ?? null);
      // Without the browser's cookies: Doorward refuses a request with a token and a session cookie.
      const response = await fetch(url, { credentials: "omit", ...request, headers, signal });
      const pause = Number(response.headers.get("Retry-After") ?? NaN);
      const isInTime = pause >= 0 && pause <= LONGEST_PAUSE;
      if (response.status !== 503 || !mayRepeat || !isInTime || repeats === REPEATS) return response;
      await response.body?.cancel();
      await sleep(pause);
      request.signal?.throwIfAborted();
    }
  }
}

/** Whether there is no telling what became of a request: the network failed, or a proxy on the way. */
function isLost(error: unknown): boolean {
  return !(error instanceof DoorwardError) || error.status === 502 || error.status === 504;
}

function sessionEnded({ status, code, detail }: DoorwardError): SessionEnded {
  return new SessionEnded(status, code, detail);
}

async function refusalOf(response: Response): Promise<DoorwardError> {
  const problem: unknown = await response.json().catch(() => undefined);
  const { code, detail } = (problem ?? {}) as { code?: unknown; detail?: unknown };
  const text = (value: unknown, otherwise: string) => (typeof value === "string" ? value : otherwise);
  return new DoorwardError(response.status, text(code, "unknown"), text(detail, response.statusText));
}

function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
