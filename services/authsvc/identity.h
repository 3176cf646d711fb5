#pragma once

#include "authsvc/work.h"

// What gateways ask besides the watch (identity_feed.h).

enum status identity_lookup(struct work *work);
enum status identity_report_use(struct work *work);
