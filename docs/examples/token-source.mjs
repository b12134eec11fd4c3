// Starts a session with LiveKit's SDK in a page, and joins it with the microphone on: npm install livekit-client
//
//   greenroom    where Greenroom is, such as https://greenroom.example.com; GREENROOM_CORS_ORIGINS names the page's origin
//   template     the id of a template
//   accessToken  a token of your identity system that carries the user's `user_id`
import { Room, TokenSource } from "livekit-client";

export async function talk(greenroom, template, accessToken) {
  const source = TokenSource.endpoint(`${greenroom}/api/v1/sessions/start?session_template_id=${template}`, {
    headers: { Authorization: `Bearer ${accessToken}` },
  });
  const { serverUrl, participantToken } = await source.fetch({});
  const room = new Room();
  await room.connect(serverUrl, participantToken);
  await room.localParticipant.setMicrophoneEnabled(true);
  return room;
}
