// Gives a test page its settings, and sends its reports to the test.

export const settings = await (await fetch("/settings.json")).json();

export async function report(event, fields = {}) {
  await fetch("/reports", { method: "POST", body: JSON.stringify({ event, ...fields }) });
}

function sendError(error) {
  report("error", { message: String(error?.stack ?? error) });
}

addEventListener("error", ({ error, message }) => sendError(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => sendError(reason));
