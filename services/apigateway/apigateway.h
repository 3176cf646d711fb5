#pragma once

#include "server/process.h"

extern const struct service_ops apigateway_service;
