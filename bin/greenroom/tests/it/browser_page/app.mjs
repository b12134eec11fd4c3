// A page that joins as in the example, tries to publish its camera, and reloads itself once.
import { report, settings } from "testkit";
import { talk } from "/token-source.mjs";

const { greenroom, template, accessToken } = settings;
let room;
try {
  room = await talk(greenroom, template, accessToken);
} catch (error) {
  await report("refused", { why: String(error) });
}

if (room) {
  const user = room.localParticipant;
  const camera = await user.setCameraEnabled(true).then(() => "published", String);
  await report("joined", {
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
