// What a page of the tests is told, and how it tells what it sees.

export const settings = await (await fetch("/settings.json")).json();

export async function tell(event, what = {}) {
  await fetch("/told", { method: "POST", body: JSON.stringify({ event, ...what }) });
}

function fail(error) {
  tell("error", { message: String(error?.stack ?? error) });
}

addEventListener("error", ({ error, message }) => fail(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => fail(reason));
