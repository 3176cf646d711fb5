#pragma once

#include "server/process.h"

extern const struct service_ops reranker_service;
