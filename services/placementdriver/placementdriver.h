#pragma once

#include "server/process.h"

// The placement driver as a part of a process: its settings and how it starts, drains and stops.

extern const struct service_ops placementdriver_service;
