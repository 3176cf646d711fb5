#pragma once

#include "apigateway/gateway.h"

// Forgets what deleted users said. A thread of its own looks through the feedback when a user was
// deleted, when the gateway has come to know the accounts anew, and every ten minutes; whom the
// directory does not know it asks the auth service about, and only whom that calls deleted is
// forgotten.

struct feedback_sweep;

// UNAVAILABLE: no thread.
enum status feedback_sweep_start(struct gateway *gateway, struct error *error,
                                 struct feedback_sweep **out_sweep);
// Before the gateway's channels go. Not on a loop. sweep may be NULL.
void feedback_sweep_stop(struct feedback_sweep *sweep);

void feedback_sweep_wake(struct feedback_sweep *sweep); // any thread
