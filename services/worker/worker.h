#pragma once

#include "server/process.h"

// The worker as a part of a process: its settings and how it starts, drains and stops.

extern const struct service_ops worker_service;
