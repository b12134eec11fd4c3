// An app's page: it talks as the example does, tries its camera, and is reloaded once.
import { settings, tell } from "testkit";
import { talk } from "/token-source.mjs";

const { greenroom, template, accessToken } = settings;
let room;
try {
  room = await talk(greenroom, template, accessToken);
} catch (error) {
  await tell("refused", { why: String(error) });
}

if (room) {
  const user = room.localParticipant;
  const camera = await user.setCameraEnabled(true).then(() => "published", String);
  await tell("joined", {
    session: JSON.parse(user.metadata).session_id,
    room: room.name,
    identity: user.identity,
    microphone: user.isMicrophoneEnabled,
    camera,
  });
  if (!sessionStorage.reloaded) {
    sessionStorage.reloaded = true;
    location.reload();
  }
}
