// A page that fetches in every way LiveKit's SDK has, and joins nothing.
import { TokenSource, decodeTokenPayload } from "livekit-client";
import { settings, tell } from "testkit";

const source = TokenSource.endpoint(`${settings.greenroom}/api/v1/sessions/start?session_template_id=${settings.template}`, {
  headers: { Authorization: `Bearer ${settings.accessToken}` },
});

async function fetched(options, force) {
  const { participantToken } = await source.fetch(options, force);
  const { metadata, name, attributes } = decodeTokenPayload(participantToken);
  return { session: JSON.parse(metadata).session_id, token: participantToken, name, attributes };
}

await tell("fetched", {
  first: await fetched({}),
  kept: await fetched({}),
  forced: await fetched({}, true),
  named: await fetched({ agentName: "greeter", participantName: "Ann", participantAttributes: { language: "en" } }),
  refused: await fetched({ roomName: "mine" }).catch(String),
});
