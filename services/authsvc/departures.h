#pragma once

#include "authsvc/auth.h"

// The collections of deleted users go as well, though they are not in our store but the placement
// driver's: the record that the deletion left says whose, a thread of its own removes them and then
// the record. It is kept a minute longer, because a gateway that has not heard of the deletion yet
// may make one more. Whoever ends in the middle of it goes on after the next start, or another auth
// service does.

struct departures;

enum status departures_start(struct authsvc *authsvc, struct error *error,
                             struct departures **out_departures);
// Somebody was deleted. Any thread; departures may be NULL, here and below.
void departures_wake(struct departures *departures);
// When nobody wakes it any more, and after pd_store_interrupt.
void departures_stop(struct departures *departures);
