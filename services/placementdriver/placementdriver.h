#pragma once

#include "server/process.h"

extern const struct service_ops placementdriver_service;
