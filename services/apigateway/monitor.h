#pragma once

#include "apigateway/gateway.h"

// Looks at the cluster every few seconds on the first loop, so that alerts are raised and resolved
// when nobody asks.

struct monitor;

struct monitor *monitor_start(struct gateway *gateway);
void monitor_stop(struct monitor *monitor); // not on a loop; monitor may be NULL
