//! The rooms and the webhooks of a real LiveKit server, with a real agent worker and a real user.

mod rooms;
mod webhooks;
