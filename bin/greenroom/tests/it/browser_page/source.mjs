// A page that fetches tokens with every kind of option of LiveKit's SDK, without joining a room.
import { TokenSource, decodeTokenPayload } from "livekit-client";
import { report, settings } from "testkit";

const source = TokenSource.endpoint(`${settings.greenroom}/api/v1/sessions/start?session_template_id=${settings.template}`, {
  headers: { Authorization: `Bearer ${settings.accessToken}` },
});

async function fetched(options, force) {
  const { participantToken } = await source.fetch(options, force);
  const { metadata, name, attributes } = decodeTokenPayload(participantToken);
  return { session: JSON.parse(metadata).session_id, token: participantToken, name, attributes };
}

await report("fetched", {
  first: await fetched({}),
  cached: await fetched({}),
  forced: await fetched({}, true),
  named: await fetched({ agentName: "greeter", participantName: "Ann", participantAttributes: { language: "en" } }),
  refused: await fetched({ roomName: "mine" }).catch(String),
});
