// Starts a session with LiveKit's SDK in a web page and joins it with the microphone on.
// Requires: npm install livekit-client
//
//   greenroom    the base URL of Greenroom, such as https://greenroom.example.com.
//                Its GREENROOM_CORS_ORIGINS must contain the page's origin.
//   template     the id of a session template
//   accessToken  a token of your identity provider with the claim `user_id`
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
