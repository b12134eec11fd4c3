#!/bin/sh
# Starts a session with curl: creates a template, starts a session from it and reads the session back.
#
#   GREENROOM_URL    the base URL of Greenroom, such as http://127.0.0.1:8080
#   GREENROOM_TOKEN  a backend token, printed by: greenroom token --org <UUID>
set -eu
: "${GREENROOM_URL:?set it to the base URL of Greenroom}" "${GREENROOM_TOKEN:?set it to the output of: greenroom token --org <UUID>}"

# Sends a request and prints the response. On failure, prints the error (application/problem+json) to stderr and exits.
call() {
  if answer=$(curl --silent --show-error --fail-with-body --max-time 10 \
    --header "Authorization: Bearer $GREENROOM_TOKEN" --header "Content-Type: application/json" "$@"); then
    printf '%s\n' "$answer"
  else
    printf '%s\n' "$answer" >&2
    exit 1
  fi
}

# Prints a string field of the JSON on stdin. With jq installed, use: jq -r .name
field() {
  sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}

created=$(call "$GREENROOM_URL/api/v1/session-templates" \
  --data "{\"name\": \"curl example $$-$(date +%s)\", \"modality_profile\": \"audio+text\"}")
template=$(echo "$created" | field id)
echo "template  $template"

started=$(call "$GREENROOM_URL/api/v1/sessions/start" \
  --data "{\"session_template_id\": \"$template\", \"user_id\": \"ann\", \"metadata\": {\"order\": 42}}")
session=$(echo "$started" | field session_id)
echo "session   $session"
echo "room      $(echo "$started" | field room_name)"
echo "connect   $(echo "$started" | field server_url)"
echo "join by   $(echo "$started" | field join_by)"

read_back=$(call "$GREENROOM_URL/api/v1/sessions/$session")
echo "status    $(echo "$read_back" | field status)"
