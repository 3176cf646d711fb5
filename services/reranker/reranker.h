#pragma once

#include "server/process.h"

// The reranker as a part of a process: its settings and how it starts, drains and stops.

extern const struct service_ops reranker_service;
