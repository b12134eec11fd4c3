//! The rooms of a real LiveKit server, with a real agent worker.

mod rooms;
