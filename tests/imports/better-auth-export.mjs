// Writes better-auth.jsonl: users made by Better Auth itself, then its table `user` joined with `account`.
import { writeFileSync } from "node:fs";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { admin, username } from "better-auth/plugins";

const db = { user: [], session: [], account: [], verification: [] };
const auth = betterAuth({
  secret: "only for making an export, no other",
  baseURL: "http://localhost:3000",
  database: memoryAdapter(db),
  emailAndPassword: { enabled: true },
  plugins: [admin(), username()],
});
for (const [name, password] of [
  ["ann", "correct horse battery staple"],
  // The ligature and the Angstrom sign are other letters in NFKC.
  ["ligature", "\ufb01ne horses of \u212bngstr\u00f6m"],
  ["banned", "correct horse battery staple"],
  ["root", "correct horse battery staple"],
]) {
  const body = { name, email: `${name}@better.example`, username: `Better_${name}`, password };
  await auth.api.signUpEmail({ body });
}
const named = (name) => db.user.find((user) => user.name === name);
named("root").role = "admin";
named("ann").emailVerified = true;
Object.assign(named("banned"), { banned: true, banReason: "spam" });
const joined = db.user.map((user) => {
  const account = db.account.find((one) => one.userId === user.id && one.providerId === "credential");
  return JSON.stringify({ ...user, password: account.password });
});
writeFileSync(`${process.argv[2]}/better-auth.jsonl`, joined.join("\n") + "\n");
