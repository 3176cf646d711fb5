#pragma once

#include "server/process.h"

// The gateway as a part of a process: its settings and how it starts, drains and stops.

extern const struct service_ops apigateway_service;
