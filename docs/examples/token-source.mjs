// Starts a session as LiveKit's JavaScript SDK does, and says what it got: npm install livekit-client
//
//   GREENROOM_URL       where Greenroom is, such as http://127.0.0.1:8080
//   GREENROOM_TOKEN     a user's token: greenroom token --org <UUID> --user ann --scope sessions:start
//   GREENROOM_TEMPLATE  the id of a template of that organization
import { TokenSource, decodeTokenPayload } from "livekit-client";

const { GREENROOM_URL: greenroom, GREENROOM_TOKEN: accessToken, GREENROOM_TEMPLATE: template } = process.env;

const source = TokenSource.endpoint(`${greenroom}/api/v1/sessions/start?session_template_id=${template}`, {
  headers: { Authorization: `Bearer ${accessToken}` },
});
const { serverUrl, participantToken } = await source.fetch({});

const { sub: identity, metadata, video } = decodeTokenPayload(participantToken);
console.log("session  ", JSON.parse(metadata).session_id);
console.log("room     ", video.room);
console.log("connect  ", serverUrl);
console.log("user     ", identity);

const again = await source.fetch({});
if (again.participantToken !== participantToken) throw new Error("the SDK asked again while its token was good");
