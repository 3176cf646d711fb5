#pragma once

#include "apigateway/survey.h"
#include "base/buf.h"

// A survey as the JSON of the management pages.

void management_print_health(const struct survey *survey, struct buf *out);
void management_print_workers(const struct survey *survey, struct buf *out);
void management_print_collections(const struct survey *survey, struct buf *out);
